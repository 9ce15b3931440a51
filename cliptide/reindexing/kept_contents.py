"""Contents that the served index holds and that the log alone would not bring into another index.

A row keeps a text whole, and of a fetched picture the digest. So a text is taken from the row, and a picture
from its link if the bytes there still have the digest. What remains is lost to the other index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from clip_index.content import LONG_FACTS, StoredContent
from clip_index.searching.searcher import Searcher
from clip_index.segments.columns import RememberedDelete
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardView
from cliptide.reindexing.retained_log import RetainedLog

Source: TypeAlias = Literal["text", "link", "lost"]


@dataclass(frozen=True, slots=True)
class KeptContent:
    """A live content that the log does not rebuild; `floor` is its id's greatest version.

    `has_room` is False if the log still begins where the shard does: then nothing can be put before it.
    """

    shard: str
    content: StoredContent
    floor: int | None
    thumbnail: bytes | None
    has_room: bool = True

    @property
    def source(self) -> Source:
        """Where its content can be taken from."""
        facts = self.content.facts
        if not self.has_room:
            return "lost"
        if self.content.modality == "text":
            return "text" if facts.text and not facts.is_truncated else "lost"
        is_web = facts.link is not None and facts.link.startswith(("http://", "https://"))
        return "link" if is_web and facts.sha256 is not None else "lost"


def find_kept(searcher: Searcher, log: RetainedLog) -> Iterator[KeptContent]:
    """Yield the live contents that the log does not rebuild, in the order of a shard's offsets."""
    for view in searcher.shard_views:
        if view.snapshot.generation and log.is_incomplete(view):
            found = [one for segment in view.segments for one in _kept_of(segment, view, log)]
            yield from sorted(found, key=lambda one: one.content.offset)


def _kept_of(segment: SegmentView, view: ShardView, log: RetainedLog) -> Iterator[KeptContent]:
    columns = segment.segment.contents
    has_room = log.has_room(view)
    for row in segment.eligible_rows(None).nonzero()[0].tolist():
        content_id, offset, floor = (columns.column(name)[row].as_py() for name in _PLACE)
        if not log.rebuilds(view.name, content_id, offset):
            content = segment.segment.read(row, LONG_FACTS)
            yield KeptContent(view.name, content, floor, segment.segment.thumbnail(row), has_room)


_PLACE = ("content_id", "offset", "floor")


def find_floors(view: ShardView) -> list[RememberedDelete]:
    """Return the versions below which the ids of a shard take no upload, though no live content has them.

    They belong to deleted ids, and to contents whose last upload has no version. The event that brought a
    floor may be gone while a later event of the id is still in the log. So all floors must be known to the
    other index: a late older version stays away there too.
    """
    deleted = [
        RememberedDelete(**row)
        for segment in view.segments
        if segment.segment.deletes is not None
        for row in segment.segment.deletes.select(list(_PLACE)).to_pylist()
    ]
    return [*deleted, *(floor for segment in view.segments for floor in _floors_without_version(segment))]


def _floors_without_version(segment: SegmentView) -> Iterator[RememberedDelete]:
    columns = segment.segment.contents.select([*_PLACE, "version"]).to_pydict()
    for row, floor in enumerate(columns["floor"]):
        if floor is not None and columns["version"][row] is None and segment.is_live(row):
            yield RememberedDelete(columns["content_id"][row], columns["offset"][row], floor)


def count_patched(searcher: Searcher, log: RetainedLog) -> int:
    """Return how many live contents were patched in what is left of the log.

    Their rows have the offsets of the patches, so nothing tells whether the log still holds their uploads.
    """
    return sum(
        _count_patched_of(segment, log.starts[view.name])
        for view in searcher.shard_views
        if log.is_incomplete(view)
        for segment in view.segments
    )


def _count_patched_of(segment: SegmentView, log_start: int) -> int:
    columns = segment.segment.contents.select(["offset", "patched_at_ms"]).to_pydict()
    rows: Sequence[int] = [row for row, at in enumerate(columns["patched_at_ms"]) if at is not None]
    return sum(columns["offset"][row] >= log_start and segment.is_live(row) for row in rows)
