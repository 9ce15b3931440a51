"""Proves that an index equals its log: fold the log again, and compare content by content.

A row holds the offset of the upload or patch that it came from. So the index equals the fold exactly if
both map the same content ids to the same offsets. Records that were set aside as dead letters are left out.

If retention has removed the log's beginning, what the rest of the log decides is compared, and the
other contents are counted as unproven.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from clip_index.fold import UNSEEN, IdState, fold, takes_patch
from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import ShardView
from event_log.records import Record
from opensearch_engine.snapshot import OpenSearchSnapshot
from schemas.codec import EventDecoder
from schemas.errors import BadEvent, UnknownSchema
from schemas.events import DeleteEvent, PatchEvent

OffsetById = dict[str, int]


class FoldedPartition:
    """The fold of one partition's records, which are added in offset order. Takes about 300 bytes per id.

    `doubtful` are the ids whose state rests on a version: if the log's beginning is gone, a greater
    version may have been there. An event without a version applies whatever was before it. `unread` are
    the ids of which a record has a schema that this process does not know.
    """

    def __init__(self) -> None:
        self._states: dict[str, IdState] = {}
        self.live: OffsetById = {}
        self.doubtful: set[str] = set()
        self.unread: set[str] = set()

    @property
    def seen(self) -> Collection[str]:
        return self._states.keys()

    def add(self, content_id: str, offset: int, *, version: int | None, is_delete: bool) -> None:
        after = fold(self._states.get(content_id, UNSEEN), version=version, is_delete=is_delete)
        if after is None:
            return
        self._states[content_id] = after
        if version is None:
            self.unread.discard(content_id)
        (self.doubtful.discard if version is None else self.doubtful.add)(content_id)
        if is_delete:
            self.live.pop(content_id, None)
        else:
            self.live[content_id] = offset

    def add_patch(self, content_id: str, offset: int) -> None:
        """Fold a patch. If the log's beginning is gone, an id that the rest does not name may be live."""
        state = self._states.get(content_id)
        if state is None:
            self.doubtful.add(content_id)
        elif takes_patch(state):
            self.live[content_id] = offset


@dataclass(frozen=True, slots=True)
class ShardDifference:
    """The content ids in which one shard differs from the fold of its log; without any they are equal.

    `num_unproven` contents could not be compared, because the log no longer holds all of their events.
    """

    shard: str
    num_equal: int
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    num_unproven: int = 0

    @property
    def is_equal(self) -> bool:
        return not (self.missing or self.surplus or self.outdated)


@dataclass(slots=True)
class LogFold:
    """The fold of the records that a snapshot covers, for each partition."""

    covered: Mapping[int, range]
    set_aside: Collection[tuple[int, int]]
    decoder: EventDecoder = field(default_factory=EventDecoder)
    num_records: int = 0
    num_beyond: int = 0
    partitions: dict[int, FoldedPartition] = field(default_factory=dict)
    log_starts: Mapping[int, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Add one record, unless it was set aside. One that the snapshot does not cover is only counted."""
        covered = self.covered.get(record.partition, range(0))
        if record.offset not in covered:
            self.num_beyond += record.offset >= covered.stop
            return
        self.num_records += 1
        if (record.partition, record.offset) in self.set_aside:
            return
        partition = self.partitions.setdefault(record.partition, FoldedPartition())
        try:
            event = self.decoder.decode(
                key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
            )
        except BadEvent:
            return  # the consumer set it aside too, even if its dead letter has expired
        except UnknownSchema:  # set aside by a consumer that did not know it either, or read by a newer one
            partition.unread.add((record.key or b"").decode(errors="replace"))
            return
        if event is None:
            return  # the consumer passed over it too
        if isinstance(event, PatchEvent):
            partition.add_patch(event.content_id, record.offset)
            return
        is_delete = isinstance(event, DeleteEvent)
        partition.add(event.content_id, record.offset, version=event.version, is_delete=is_delete)

    def compare(
        self, searcher: Searcher | OpenSearchSnapshot, partition_of: Callable[[str], int]
    ) -> list[ShardDifference]:
        """Compare every shard with the fold of its partition, as far as the log holds its offsets."""
        shards = (
            shards_of_searcher(searcher) if isinstance(searcher, Searcher) else shards_of_opensearch(searcher)
        )
        return [self._compare(shard, partition_of(shard.name)) for shard in shards]

    def _compare(self, shard: ComparedShard, partition: int) -> ShardDifference:
        folded = self.partitions.get(partition, FoldedPartition())
        log_start, covered = self.log_starts.get(partition, 0), self.covered.get(partition, range(0))
        if log_start <= covered.start or not covered:
            return compare_shard(shard, folded.live, folded.unread)
        return compare_rest(shard, folded, log_start)


@dataclass(frozen=True, slots=True)
class ComparedShard:
    """The live contents of a shard, with their offsets.

    `ahead` are ids that an event beyond the covered ones has changed already, which can be in
    OpenSearch. What they were before is not known, so a difference in them proves nothing.
    """

    name: str
    live: OffsetById
    ahead: Collection[str] = ()


def shards_of_searcher(searcher: Searcher) -> list[ComparedShard]:
    return [ComparedShard(shard.name, dict(_live_offsets(shard))) for shard in searcher.shard_views]


def shards_of_opensearch(snapshot: OpenSearchSnapshot) -> list[ComparedShard]:
    live: dict[str, OffsetById] = {name: {} for name in snapshot.shards}
    ahead: dict[str, set[str]] = {name: set() for name in snapshot.shards}
    for stored in snapshot.stored_offsets():
        if stored.offset >= snapshot.shards[stored.shard].next_offset:
            ahead[stored.shard].add(stored.content_id)
        if stored.is_live:
            live[stored.shard][stored.content_id] = stored.offset
    return [ComparedShard(name, live[name], ahead[name]) for name in snapshot.shards]


def covered_ranges(
    searcher: Searcher | OpenSearchSnapshot, partition_of: Callable[[str], int]
) -> dict[int, range]:
    """Return the offsets that each partition's shard covers."""
    shards = searcher.shards.items()
    return {partition_of(name): range(shard.first_offset, shard.next_offset) for name, shard in shards}


def compare_shard(
    shard: ComparedShard, expected: Mapping[str, int], unread: Collection[str] = ()
) -> ShardDifference:
    """Compare a shard with its whole log. Unproven is what differs where a record could not be read."""
    found = shard.live
    doubtful = {*unread, *shard.ahead}
    return _without_unproven(shard, found, expected, {i for i in doubtful if found.get(i) != expected.get(i)})


def compare_rest(shard: ComparedShard, folded: FoldedPartition, log_start: int) -> ShardDifference:
    """Compare a shard with a log that begins at `log_start`, because retention has removed what was before.

    Unproven are the contents whose events lie before it, and those whose versions may have to be compared
    with events before it, unless the shard has what the rest of the log says.
    """
    found = shard.live
    older = {i for i, offset in found.items() if i not in folded.seen and offset < log_start}
    doubtful = folded.doubtful | folded.unread | set(shard.ahead)
    unproven = older | {i for i in doubtful if found.get(i) != folded.live.get(i)}
    return _without_unproven(shard, found, folded.live, unproven)


def _without_unproven(
    shard: ComparedShard, found: Mapping[str, int], expected: Mapping[str, int], unproven: Collection[str]
) -> ShardDifference:
    difference = _difference(
        shard,
        {i: offset for i, offset in found.items() if i not in unproven},
        {i: offset for i, offset in expected.items() if i not in unproven},
    )
    return replace(difference, num_unproven=len(unproven))


def _difference(
    shard: ComparedShard, found: Mapping[str, int], expected: Mapping[str, int]
) -> ShardDifference:
    return ShardDifference(
        shard=shard.name,
        num_equal=sum(found.get(content_id) == offset for content_id, offset in expected.items()),
        missing=tuple(sorted(expected.keys() - found.keys())),
        surplus=tuple(sorted(found.keys() - expected.keys())),
        outdated=tuple(sorted(i for i in expected.keys() & found.keys() if expected[i] != found[i])),
    )


def _live_offsets(shard: ShardView) -> Iterable[tuple[str, int]]:
    for view in shard.segments:
        columns = view.segment.contents
        ids, offsets = columns.column("content_id").to_pylist(), columns.column("offset").to_pylist()
        for row, (content_id, offset) in enumerate(zip(ids, offsets, strict=True)):
            if view.is_live(row):
                yield content_id, offset
