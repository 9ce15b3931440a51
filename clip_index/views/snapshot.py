"""One opened generation of each shard, of which a searcher is made, and the values that it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from clip_index.content import Modality
from clip_index.generations.manifest import GenerationKey
from clip_index.views.segment_view import SegmentView
from clip_index.views.tail import Tail


@dataclass(frozen=True, slots=True)
class ShardSnapshot:
    """One shard's generation; 0 while it has none. `digest` tells it from another of that number.

    It contains every change of the log range `[first_offset, next_offset)` and covers every record
    up to `watermark_ms` (ms since 1970, None while unknown). `num_contents` counts live contents.
    `damaged_generation` is a newer generation that cannot be served, because a file of it is damaged.
    `size_bytes` is the size of all files of the generation.
    """

    generation: int
    first_offset: int
    next_offset: int
    watermark_ms: int | None
    num_contents: Mapping[Modality, int]
    num_segments: int = 0
    digest: str = ""
    damaged_generation: int | None = None
    size_bytes: int = 0

    @property
    def key(self) -> GenerationKey:
        return GenerationKey(self.generation, self.digest)


class Location(NamedTuple):
    """A live row of a searcher. Callers pass it back to this searcher and read nothing in it."""

    shard: str
    view: SegmentView
    row: int


class Hit(NamedTuple):
    """One result; `score` is the cosine similarity of the query and the content's best embedding.

    A tuple, because answers are made of many.
    """

    content_id: str
    score: float
    modality: Modality
    location: Location


@dataclass(frozen=True, slots=True)
class ShardView:
    """The opened segments of one shard's generation; `tails` join the small segments."""

    name: str
    snapshot: ShardSnapshot
    segments: tuple[SegmentView, ...] = ()
    tails: Mapping[Modality, Sequence[Tail]] = field(default_factory=dict)

    def sources(self, modality: Modality) -> list[SegmentView | Tail]:
        """Return what covers all contents of a modality: the tails and every segment outside them."""
        tails = self.tails.get(modality, ())
        joined = {id(view) for tail in tails for view in tail.views}
        segments = (view for view in self.segments if modality in view.segment.vector_files)
        return [*tails, *(view for view in segments if id(view) not in joined)]


def count_contents(segments: Iterable[SegmentView]) -> dict[Modality, int]:
    """Count the live contents of segments by modality."""
    counts: dict[Modality, int] = {}
    for view in segments:
        for modality, num_live in view.num_live.items():
            counts[modality] = counts.get(modality, 0) + num_live
    return counts


class SearchObserver(Protocol):
    """Is told of the search of each shard, in the thread that searches."""

    def searching(self, shard: str, modality: Modality, /) -> AbstractContextManager[None]:
        """Return a context that spans the search of one shard."""
        ...
