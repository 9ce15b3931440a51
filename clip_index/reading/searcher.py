"""The index as given generations show it: what one request holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Modality, StoredContent
from clip_index.generations.manifest import GenerationKey
from clip_index.reading.segment_view import RowScores, SegmentView
from clip_index.reading.tail import Tail
from clip_index.row_filter import RowFilter
from clip_index.segments.column_reader import StoredField
from clip_index.segments.id_table import hash_ids
from clip_index.vectors.queries import Queries

if TYPE_CHECKING:
    from clip_index.reading.browsing import BrowsePlace, NewestContent
    from clip_index.reading.value_counts import CountedField, ValueCounts


@dataclass(frozen=True, slots=True)
class ShardSnapshot:
    """One shard's generation, 0 while it has none; `digest` tells it from another of that number.

    Every change of the log range `[first_offset, next_offset)` is in it, and every record
    up to `watermark_ms` (ms since 1970, None while unknown). `num_contents` counts live ones.
    """

    generation: int
    first_offset: int
    next_offset: int
    watermark_ms: int | None
    num_contents: Mapping[Modality, int]
    num_segments: int = 0
    digest: str = ""

    @property
    def key(self) -> GenerationKey:
        return GenerationKey(self.generation, self.digest)


@dataclass(frozen=True, slots=True)
class Location:
    """A live row of a searcher; meaningless to any other."""

    shard: str
    view: SegmentView
    row: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One result; `score` is the cosine similarity of the query and the content's best embedding."""

    content_id: str
    score: float
    modality: Modality
    location: Location


@dataclass(frozen=True, slots=True)
class ShardView:
    """The opened segments of one shard's generation; its tails join the small ones of them."""

    name: str
    snapshot: ShardSnapshot
    segments: tuple[SegmentView, ...] = ()
    tails: Mapping[Modality, Tail] = field(default_factory=dict)

    def sources(self, modality: Modality) -> list[SegmentView | Tail]:
        """Return what to search for all contents of a modality: the tail and every segment beside it."""
        segments = [view for view in self.segments if modality in view.segment.vector_files]
        tail = self.tails.get(modality)
        return [tail, *(view for view in segments if view not in tail.views)] if tail else [*segments]


class SearchObserver(Protocol):
    """Told of each shard's part of a search, in the thread that does it."""

    def searching(self, shard: str, modality: Modality, /) -> AbstractContextManager[None]:
        """Return a context that spans the search of one shard."""
        ...


class Searcher:
    """Immutable and thread-safe: answers do not change while a request holds it."""

    def __init__(
        self, shards: Iterable[ShardView], dimension: int, observer: SearchObserver | None = None
    ) -> None:
        self._shards = tuple(shards)
        self._observer = observer or _Unobserved()
        self.dimension = dimension
        self.shards: Mapping[str, ShardSnapshot] = {shard.name: shard.snapshot for shard in self._shards}

    @property
    def shard_views(self) -> tuple[ShardView, ...]:
        return self._shards

    def observed_by(self, observer: SearchObserver | None) -> Searcher:
        """Return a searcher over the same shards that tells the observer of its searches."""
        return self if observer is None else Searcher(self._shards, self.dimension, observer)

    def search(
        self,
        queries: Embeddings,
        *,
        k: int,
        modality: Modality,
        min_score: float | None = None,
        row_filter: RowFilter | None = None,
        depth: int | None = None,
    ) -> list[list[Hit]]:
        """Return the k best live contents of each query (q, dimension) float32, best first.

        Fewer only where fewer exist, pass the filter and reach `min_score`. Equal scores are ordered by
        content id, so that the same snapshot gives the same answer. Answers of one `depth` continue each
        other: what is found for a smaller k begins what is found for a greater one, up to that many hits,
        beyond which there may be fewer than k.
        """
        asked = Queries(queries, depth)
        places, found = [], []
        for shard in self._shards:
            with self._observer.searching(shard.name, modality):
                for source in shard.sources(modality):
                    places.append((shard.name, source))
                    found.append(source.search(asked, k, modality, row_filter))
        answers = []
        for query in range(len(queries)):
            candidates = _Candidates(places, [rows[query] for rows in found], modality)
            hits = candidates.best(k)
            answers.append([hit for hit in hits if min_score is None or hit.score >= min_score])
        return answers

    def find(self, content_id: str) -> Location | None:
        """Return where a live content lies; the newest one if producers sent its id to several partitions."""
        hashes = hash_ids([content_id])
        locations = [
            Location(shard.name, view, found.row)
            for shard in self._shards
            for view in shard.segments
            for _, found in view.find([content_id], hashes)
            if found.row is not None
        ]
        return max(locations, key=_recency, default=None)

    def floor(self, content_id: str) -> int | None:
        """Return the greatest version seen of an id, live or deleted; None without any."""
        hashes = hash_ids([content_id])
        floors = [
            found.floor
            for shard in self._shards
            for view in shard.segments
            for _, found in view.segment.find_ids([content_id], hashes)
            if found.floor is not None
        ]
        return max(floors, default=None)

    def find_owner(self, owner_id: str) -> list[Location]:
        """Return all live contents of an owner."""
        owner_hash = hash_ids([owner_id])
        return [
            Location(shard.name, view, row)
            for shard in self._shards
            for view in shard.segments
            for row in view.segment.find_owner_rows(owner_id, owner_hash)
            if view.is_live(row)
        ]

    def newest(
        self,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after: BrowsePlace | None = None,
    ) -> list[NewestContent]:
        """Return the k live contents that occurred last, the latest first; see `find_newest`."""
        from clip_index.reading.browsing import find_newest

        return find_newest(self, k=k, modality=modality, row_filter=row_filter, after=after)

    def count_values(
        self, field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
    ) -> ValueCounts:
        """Return how many live contents have each value of a field; see the function of this name."""
        from clip_index.reading.value_counts import count_values

        return count_values(self, field, row_filter, max_values=max_values)

    def sample(self, modality: Modality, num_contents: int) -> list[Location]:
        """Draw live contents at random; the same snapshot gives the same sample."""
        from clip_index.reading.sampling import sample_contents

        return sample_contents(self, modality, num_contents)

    def newcomers_since(self, former: Searcher) -> NDArray[np.int64]:
        """Return `occurred_at_ms` of every content that `former` did not cover yet, shape (n,)."""
        from clip_index.reading.newcomers import occurrence_times_of_newcomers

        return occurrence_times_of_newcomers(former, self)

    def read(self, location: Location) -> StoredContent:
        return location.view.segment.read(location.row)

    def read_many(
        self, locations: Iterable[Location], fields: Collection[StoredField]
    ) -> list[StoredContent]:
        """Read contents in the given order; `fields` are read beside the short ones."""
        return [location.view.segment.read(location.row, fields) for location in locations]

    def thumbnail(self, location: Location) -> bytes | None:
        return location.view.segment.thumbnail(location.row)

    def embeddings(self, location: Location) -> Embeddings:
        """Return the content's embeddings, (windows, dimension) float32 from fp16."""
        return location.view.segment.embeddings(location.row)


class _Unobserved:
    """Most searches are watched by nobody."""

    def searching(self, _shard: str, _modality: Modality, /) -> AbstractContextManager[None]:
        return _NO_CONTEXT


_NO_CONTEXT = nullcontext()


class _Candidates:
    """What the segments and tails found for one query."""

    def __init__(
        self,
        places: Sequence[tuple[str, SegmentView | Tail]],
        found: Sequence[RowScores],
        modality: Modality,
    ) -> None:
        self._places = places
        self._modality = modality
        scores = np.concatenate([rows.scores for rows in found]) if found else np.empty(0, np.float32)
        order = np.argsort(-scores, kind="stable")
        self._scores = scores[order]
        ends = np.cumsum([len(rows.rows) for rows in found], dtype=np.int64)
        self._place_of = np.searchsorted(ends, order, side="right")
        self._row_of = np.concatenate([rows.rows for rows in found])[order] if found else order

    def best(self, k: int) -> list[Hit]:
        """Return k hits of distinct content ids; only as many candidates are read as that takes."""
        num_wanted = k
        while True:
            num_read = self._num_at_least_as_good(num_wanted)
            hits = _newest_of_each(self._hits(num_read))
            if len(hits) >= k or num_read == len(self._scores):
                return sorted(hits, key=lambda hit: (-hit.score, hit.content_id))[:k]
            num_wanted *= 2

    def _num_at_least_as_good(self, num_wanted: int) -> int:
        """Equal scores at the end are all read: content ids, not segments, decide between them."""
        if num_wanted >= len(self._scores):
            return len(self._scores)
        return int(np.searchsorted(-self._scores, -self._scores[num_wanted - 1], side="right"))

    def _hits(self, num_read: int) -> Iterator[Hit]:
        candidates = zip(
            self._scores[:num_read].tolist(),
            self._place_of[:num_read].tolist(),
            self._row_of[:num_read].tolist(),
            strict=True,
        )
        for score, place, found_row in candidates:
            shard, source = self._places[place]
            view, row = source.locate(found_row)
            content_id = view.segment.content_id(row)
            yield Hit(content_id, score, self._modality, Location(shard, view, row))


def _newest_of_each(hits: Iterable[Hit]) -> list[Hit]:
    """Keep one hit of each content id, should producers have sent one to several partitions."""
    newest: dict[str, Hit] = {}
    for hit in hits:
        known = newest.get(hit.content_id)
        if known is None or _recency(hit.location) > _recency(known.location):
            newest[hit.content_id] = hit
    return list(newest.values())


def _recency(location: Location) -> tuple[int, int]:
    return location.view.segment.recency(location.row)
