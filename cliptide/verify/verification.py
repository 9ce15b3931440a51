"""Proves that an index equals its log: fold the log again, and compare content by content.

A row holds the offset of the event that it came from. So the index equals the fold exactly if both map
the same content ids to the same offsets. Records that were set aside as dead letters are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from clip_index.fold import UNSEEN, IdState, fold
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import ShardView
from event_log.records import Record
from schemas.codec import EventDecoder
from schemas.errors import BadEvent
from schemas.events import DeleteEvent

OffsetById = dict[str, int]


class FoldedPartition:
    """The fold of one partition's records, which are added in offset order. Takes about 300 bytes per id."""

    def __init__(self) -> None:
        self._states: dict[str, IdState] = {}
        self.live: OffsetById = {}

    def add(self, content_id: str, offset: int, *, version: int | None, is_delete: bool) -> None:
        after = fold(self._states.get(content_id, UNSEEN), version=version, is_delete=is_delete)
        if after is None:
            return
        self._states[content_id] = after
        if is_delete:
            self.live.pop(content_id, None)
        else:
            self.live[content_id] = offset


@dataclass(frozen=True, slots=True)
class ShardDifference:
    """The content ids in which one shard differs from the fold of its log; without any they are equal."""

    shard: str
    num_equal: int
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()

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
    partitions: dict[int, FoldedPartition] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Add one record, unless the snapshot does not cover it or it was set aside."""
        if record.offset not in self.covered.get(record.partition, ()):
            return
        self.num_records += 1
        if (record.partition, record.offset) in self.set_aside:
            return
        try:
            event = self.decoder.decode(
                key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
            )
        except BadEvent:
            return  # the consumer set it aside too, even if its dead letter has expired
        partition = self.partitions.setdefault(record.partition, FoldedPartition())
        is_delete = isinstance(event, DeleteEvent)
        partition.add(event.content_id, record.offset, version=event.version, is_delete=is_delete)

    def compare(self, searcher: Searcher, partition_of: Callable[[str], int]) -> list[ShardDifference]:
        """Compare every shard with the fold of its partition."""
        return [
            compare_shard(shard, self.partitions.get(partition_of(shard.name), FoldedPartition()).live)
            for shard in searcher.shard_views
        ]


def covered_ranges(searcher: Searcher, partition_of: Callable[[str], int]) -> dict[int, range]:
    """Return the offsets that each partition's shard covers."""
    shards = searcher.shards.items()
    return {partition_of(name): range(shard.first_offset, shard.next_offset) for name, shard in shards}


def compare_shard(shard: ShardView, expected: Mapping[str, int]) -> ShardDifference:
    found = dict(_live_offsets(shard))
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
