"""The index as given generations show it. One request holds one searcher."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Headline, LongFact, Modality, StoredContent
from clip_index.row_filter import Exists, RowFilter
from clip_index.searching.browsing import NewestContent, TimePosition, find_newest
from clip_index.searching.candidates import Candidates
from clip_index.searching.newcomers import occurrence_times_of_newcomers
from clip_index.searching.sampling import sample_contents
from clip_index.searching.sources import Sources
from clip_index.searching.stacks import FewOfAll, ShardSource, Source
from clip_index.searching.value_counts import CountedField, ValueCounts, count_values
from clip_index.segments.id_table import hash_ids
from clip_index.segments.segment import Segment
from clip_index.vectors.queries import MIN_DEPTH, Around, Queries, Reach
from clip_index.views.best_rows import RowScores
from clip_index.views.snapshot import Hit, Location, SearchObserver, ShardSnapshot, ShardView

T = TypeVar("T")


class Searcher:
    """Immutable and thread-safe: its answers do not change.

    Content ids are distinct in its shards: where they were not, `DoubledIds` has removed the older rows.
    """

    def __init__(
        self, shards: Iterable[ShardView], dimension: int, observer: SearchObserver | None = None
    ) -> None:
        self._shards = tuple(shards)
        self._observer = observer
        self._built: dict[Callable[[Searcher], object], object] = {}
        self._sources: dict[Modality, Sources] = {}
        self._searched: set[Modality] = set()
        self.dimension = dimension
        self.lineage: object = object()
        """What searchers have in common that differ by small segments alone, each from the one before."""
        self.shards: Mapping[str, ShardSnapshot] = {shard.name: shard.snapshot for shard in self._shards}

    @property
    def shard_views(self) -> tuple[ShardView, ...]:
        return self._shards

    def observed_by(self, observer: SearchObserver | None) -> Searcher:
        """Return a searcher over the same shards that tells the observer of its searches."""
        if observer is None:
            return self
        observed = Searcher(self._shards, self.dimension, observer)
        observed._sources, observed._searched = self._sources, self._searched
        observed.lineage = self.lineage
        return observed

    def prepare_like(self, former: Searcher) -> None:
        """Prepare for searches of what was searched in `former`, or the first of each would do it."""
        if self._merged_segments <= former._merged_segments:
            self.lineage = former.lineage
        for modality in tuple(former._searched):
            self._sources[modality] = Sources(self._shards, modality, former._sources_of(modality))

    @cached_property
    def _merged_segments(self) -> set[Segment]:
        segments = (view.segment for shard in self._shards for view in shard.segments)
        return {segment for segment in segments if segment.has_lists}

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
        content id, so that the same snapshot gives the same answer.

        With a `depth`, answers are pages of one ranking: what is found for a smaller k begins what is
        found for a greater one, up to that many hits. Such a ranking begins as the answer without a depth
        does. Where the near lists are used up, it goes on with what all other lists hold, best first.
        """
        if k < 1 or not len(queries):
            return [[] for _ in range(len(queries))]
        is_paged, least = depth is not None, -1.0 if min_score is None else min_score
        num_ranked = max(k, MIN_DEPTH) if is_paged else k
        ask = _Ask(num_ranked, modality, row_filter, is_paged)
        near = self._find_best(queries, ask, Reach.NEAR)
        answers = [candidates.best(num_ranked) for candidates in near]
        short = [q for q, hits in enumerate(answers) if ask.is_short(hits, k, least)]
        if short and self._sources_of(modality).has_rest:
            rest = self._find_best(queries[short], ask, Reach.REST)
            for query, others in zip(short, rest, strict=True):
                answers[query] = ask.completed(answers[query], near[query], others, least)
        return [[hit for hit in hits if hit.score >= least][:k] for hits in answers]

    def search_exactly(
        self,
        queries: Embeddings,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after_each: Callable[[float], object],
    ) -> list[list[Hit]]:
        """Return the k best live contents of each query, found by a scan of everything.

        That costs as much as all embeddings are long. So it is made in parts, and `after_each` is told the
        CPU seconds of each part in the thread that searches, where it may rest.
        """
        asked, found, sources = Queries(queries, k), [], self._sources_of(modality).all
        for source in sources:
            began = time.thread_time()
            found.append(source.search(asked, k, modality, row_filter, Reach.ALL))
            after_each(time.thread_time() - began)
        return [one.best(k) for one in _candidates(sources, found, modality, len(queries))]

    def _find_best(self, embeddings: Embeddings, ask: _Ask, reach: Reach) -> list[Candidates]:
        """Return what each source within reach has to offer, for each query."""
        self._searched.add(ask.modality)
        sources = self._sources_of(ask.modality)
        queries = ask.queries(embeddings, sources.around)
        is_plain = ask.row_filter is None and reach is Reach.NEAR
        if ask.row_filter is None:
            untried = sources.try_together(queries, ask.num_ranked + 1, None, sources.alone)
            if is_plain and self._observer is None:
                return self._find_in_stacks(queries, ask, sources, untried)
        if ask.row_filter is not None:
            few, others = sources.split_few(queries, ask.row_filter)
            untried = sources.try_together(queries, ask.num_ranked + 1, ask.row_filter, others)
            if reach is Reach.NEAR and self._observer is None:
                return self._find_filtered(queries, ask, sources, few, others, untried)
        found = []
        for shard, members in sources.by_shard:
            with self._observing(shard, ask.modality):
                found += [
                    source.search(queries, ask.num_ranked, ask.modality, ask.row_filter, reach)
                    for source in members
                ]
        return _candidates(sources.all, found, ask.modality, len(queries))

    def _find_in_stacks(
        self,
        queries: Queries,
        ask: _Ask,
        sources: Sources,
        untried: Sequence[tuple[list[int], NDArray[np.int64]]],
    ) -> list[Candidates]:
        """Scan what is stacked in one call; nobody is told how long each shard took."""
        thinned, alone = sources.find_thinned(queries, ask.num_ranked, None, sources.alone, untried)
        found = [stack.search(queries, ask.num_ranked) for stack in sources.stacks]
        found += [rows for _, rows in thinned]
        found += [source.search(queries, ask.num_ranked, ask.modality, None, Reach.NEAR) for source in alone]
        members: list[Source] = [*sources.stacks, *(stack for stack, _ in thinned), *alone]
        return _candidates(members, found, ask.modality, len(queries))

    def _find_filtered(
        self,
        queries: Queries,
        ask: _Ask,
        sources: Sources,
        few: Sequence[FewOfAll],
        others: Sequence[ShardSource],
        untried: Sequence[tuple[list[int], NDArray[np.int64]]],
    ) -> list[Candidates]:
        """Scan in one call what the filter leaves few rows of, and in one what it leaves most rows of.

        Nobody is told how long each shard took.
        """
        thinned, alone = sources.find_thinned(queries, ask.num_ranked, ask.row_filter, others, untried)
        found = [one.search(queries, ask.num_ranked) for one in few]
        found += [rows for _, rows in thinned]
        found += [
            source.search(queries, ask.num_ranked, ask.modality, ask.row_filter, Reach.NEAR)
            for source in alone
        ]
        members: list[Source] = [*few, *(stack for stack, _ in thinned), *alone]
        return _candidates(members, found, ask.modality, len(queries))

    def _observing(self, shard: str, modality: Modality) -> AbstractContextManager[None]:
        return _NO_CONTEXT if self._observer is None else self._observer.searching(shard, modality)

    def _sources_of(self, modality: Modality) -> Sources:
        known = self._sources.get(modality)
        if known is None:
            known = self._sources[modality] = Sources(self._shards, modality)
        return known

    def around(self, modality: Modality) -> Mapping[int, Around]:
        """Return the lists of all shards around the same centroids together, by the `id` of these."""
        return self._sources_of(modality).around

    def find(self, content_id: str) -> Location | None:
        """Return the location of a live content."""
        hashes = hash_ids([content_id])
        locations = (
            Location(shard.name, view, found.row)
            for shard in self._shards
            for view in shard.segments
            for _, found in view.find([content_id], hashes)
            if found.row is not None
        )
        return next(locations, None)

    def floor(self, content_id: str) -> int | None:
        """Return the greatest version of an id, live or deleted; None if it never had a version."""
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
        after: TimePosition | None = None,
    ) -> list[NewestContent]:
        """Return the k live contents that occurred last, the latest first; see `find_newest`."""
        return find_newest(self._shards, k=k, modality=modality, row_filter=row_filter, after=after)

    def count_values(
        self, field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
    ) -> ValueCounts:
        """Return how many live contents have each value of a field; see the function of this name."""
        return count_values(self._shards, field, row_filter, max_values=max_values)

    def has_field(self, field: str) -> bool:
        """Whether a live content has a value of the field, such as `metadata.colour`. Blocking."""
        present = RowFilter((Exists(field),))
        return any(view.has_row(present) for shard in self._shards for view in shard.segments)

    def sample(self, modality: Modality, num_contents: int) -> list[Location]:
        """Draw live contents at random; the same snapshot gives the same sample."""
        return sample_contents(self._shards, modality, num_contents)

    def newcomers_since(self, former: Searcher) -> NDArray[np.int64]:
        """Return `occurred_at_ms` of every content that `former` did not cover yet, shape (n,)."""
        return occurrence_times_of_newcomers(former.shard_views, self._shards)

    def read(self, location: Location) -> StoredContent:
        return location.view.segment.read(location.row)

    def read_many(
        self, locations: Iterable[Location], long_facts: Collection[LongFact]
    ) -> list[StoredContent]:
        """Read contents in the given order, with the short facts and the long ones that are named."""
        return [location.view.segment.read(location.row, long_facts) for location in locations]

    def headlines(self, locations: Iterable[Location]) -> list[Headline]:
        """Read what every answer shows of contents, in the given order."""
        return [location.view.segment.headline(location.row) for location in locations]

    def headlines_of_hits(self, hits: Iterable[Hit]) -> list[Headline]:
        """Read the same of hits, which have their ids and modalities already."""
        return [
            location.view.segment.headline_of(location.row, content_id, modality)
            for content_id, _, modality, location in hits
        ]

    def once(self, build: Callable[[Searcher], T]) -> T:
        """Return what `build` makes of this searcher. It is made once and kept with the searcher."""
        known: Any = self._built.get(build)
        if known is None:
            known = self._built[build] = build(self)
        built: T = known
        return built

    def thumbnail(self, location: Location) -> bytes | None:
        return location.view.segment.thumbnail(location.row)

    def embeddings(self, location: Location) -> Embeddings:
        """Return the content's embeddings, (windows, dimension) float32 from fp16."""
        return location.view.segment.embeddings(location.row)


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is asked of every source. `num_ranked` hits are ranked, of which the answer shows the first."""

    num_ranked: int
    modality: Modality
    row_filter: RowFilter | None
    is_paged: bool

    def queries(self, embeddings: Embeddings, around: Mapping[int, Around]) -> Queries:
        depth = MIN_DEPTH if self.is_paged else self.num_ranked
        return Queries(embeddings, depth, is_paged=self.is_paged, around=around)

    @property
    def num_needed(self) -> int:
        """How many hits the near lists must hold, or else all lists are one ranking."""
        return MIN_DEPTH if self.is_paged else self.num_ranked

    def is_short(self, near: list[Hit], k: int, least: float) -> bool:
        """Whether the rest is needed: in pages also when the near hits that reach the least are used up."""
        if len(near) < self.num_needed:
            return True
        return self.is_paged and (len(near) < k or near[k - 1].score < least)

    def completed(self, hits: list[Hit], near: Candidates, rest: Candidates, least: float) -> list[Hit]:
        """Rank near and rest together; in pages, where near hits may have been shown, the rest follows."""
        if len(hits) < self.num_needed:
            return near.joined_with(rest).best(self.num_ranked)
        return [hit for hit in (*hits, *rest.best(self.num_ranked)) if hit.score >= least]


def _candidates(
    sources: Sequence[Source], found: Sequence[Sequence[RowScores]], modality: Modality, num_queries: int
) -> list[Candidates]:
    """Return the candidates of each query from what each source has found for all of them."""
    return [Candidates(sources, [rows[query] for rows in found], modality) for query in range(num_queries)]


_NO_CONTEXT = nullcontext()
