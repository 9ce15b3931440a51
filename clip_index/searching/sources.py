"""What a search of one modality asks, prepared once for a searcher.

Most lists lie around the same centroids. A plain search scans those of all shards in one call, as a stack.
So does one with a filter that keeps half or more and does not depend on the query. Other filters, a search
that is traced by shard, and what cannot be stacked take a call for each segment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import compress
from operator import not_

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from clip_index.searching.stacks import FewOfAll, NumberedSources, ShardSource, Stack
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.joined_trial import try_together
from clip_index.vectors.lists.list_members import ListedSelection, listed
from clip_index.vectors.queries import Around, Queries, join_around
from clip_index.views.best_rows import RowScores
from clip_index.views.snapshot import ShardView

_MIN_STACKED = 2
"""A single file without codes is searched as fast alone."""


_KEPT_BESIDE = 16
"""Beside twice the wanted nodes. Equal scores are asked for again, and quantised lists ask for candidates."""


class Sources:
    """The segments and tails of a modality in all shards. Immutable and thread-safe."""

    def __init__(
        self, shards: Iterable[ShardView], modality: Modality, former: Sources | None = None
    ) -> None:
        """Of `former`, the sources of an earlier searcher, is shared what has not changed."""
        known = {} if former is None else former._of_shards
        self._of_shards: dict[int, tuple[ShardView, Sequence[ShardSource]]] = {
            id(shard): known.get(id(shard)) or (shard, _sources_of(shard, modality)) for shard in shards
        }
        self.by_shard: Sequence[tuple[str, Sequence[ShardSource]]] = [
            (shard.name, sources) for shard, sources in self._of_shards.values()
        ]
        self.all = [source for _, sources in self.by_shard for source in sources]
        self.around = _find_around(self.all, modality)
        self.has_rest = any(source.rows.has_rest(modality) for source in self.all)
        """Whether a search may leave out anything: only inverted lists have lists that it does not scan."""
        self.stacks: list[Stack]
        self.alone: list[ShardSource]
        self.stacks, self.alone = _stack(self.all, modality, () if former is None else former.stacks)
        self._modality = modality
        self._thinned: dict[tuple[int, ...], Stack] = {}
        self._whole: dict[int, Stack] = {}
        self._prepare_stacks(former)

    def try_together(
        self, queries: Queries, k: int, row_filter: RowFilter | None, members: Sequence[ShardSource]
    ) -> list[tuple[list[int], NDArray[np.int64]]]:
        """Find out for all members together which lists are near, with the k best of what was tried.

        They are near under a filter, or in spite of dead rows. Members without either are left out. Return
        the numbers of members of which nothing was tried, and how many lists are near to each query, (q,).
        """
        groups: defaultdict[int, list[int]] = defaultdict(list)
        files: dict[int, tuple[InvertedLists, ListedSelection]] = {}
        for number, source in enumerate(members):
            lists = source.rows.lists(self._modality)
            nodes = source.rows.eligible(self._modality, row_filter).nodes if lists else None
            if lists is not None and nodes is not None and not lists.scans_all(queries, nodes):
                groups[id(lists.centroids)].append(number)
                files[number] = lists, listed(nodes)
        untried = []
        for key, numbers in groups.items():
            of_files = join_around([files[number][0].around for number in numbers])
            around = self.around[key] if row_filter is not None else of_files
            group = [files[number] for number in numbers]
            num_near = try_together(queries, 2 * k + _KEPT_BESIDE, around, group)
            if num_near is not None:
                untried.append((numbers, num_near))
        return untried

    def find_thinned(
        self,
        queries: Queries,
        k: int,
        row_filter: RowFilter | None,
        members: Sequence[ShardSource],
        untried: Iterable[tuple[list[int], NDArray[np.int64]]],
    ) -> tuple[list[tuple[Stack, list[RowScores]]], list[ShardSource]]:
        """Return what stacks have to offer under a filter, or in spite of dead rows, and the other members.

        `untried` is what `try_together` returns for these members.
        """
        found, stacked = [], set[int]()
        for numbers, num_near in untried:
            chosen = [n for n in numbers if members[n].rows.part_of_stack(self._modality)]
            if not chosen:
                continue
            stack = self._stack_for([members[n] for n in chosen], row_filter)
            are_chosen = {id(members[n].rows) for n in chosen}
            eligible = [
                source.rows.eligible(self._modality, row_filter) if id(source.rows) in are_chosen else None
                for source in stack.sources
            ]
            found.append((stack, stack.search_thinned(queries, k, num_near, eligible)))
            stacked.update(chosen)
        return found, [source for number, source in enumerate(members) if number not in stacked]

    def _stack_for(self, chosen: Sequence[ShardSource], row_filter: RowFilter | None) -> Stack:
        """Return a stack that has some sources around the same centroids.

        Every filter chooses others, so all filters share a stack of all sources around these centroids.
        """
        if row_filter is None:
            return self._thinned_stack(chosen)
        lists = chosen[0].rows.lists(self._modality)
        assert lists is not None
        return self._whole_stack(id(lists.centroids))

    def _prepare_stacks(self, former: Sources | None) -> None:
        """Build the stacks that most searches ask for, so that the first one need not."""
        for sources in self._around_each(
            [source for source in self.alone if self._has_dead(source)]
        ).values():
            self._thinned_stack(sources)
        if former is None or not former._whole:
            return
        stackable = self._around_each(self.all)
        for key, stack in tuple(former._whole.items()):  # searches of other threads may add some meanwhile
            if key in stackable:
                self._whole_stack(key, stack)

    def _has_dead(self, source: ShardSource) -> bool:
        return source.rows.eligible(self._modality, None).nodes is not None

    def _thinned_stack(self, sources: Sequence[ShardSource]) -> Stack:
        key = tuple(id(source.rows) for source in sources)
        known = self._thinned.get(key)
        if known is None:
            known = self._thinned[key] = Stack(sources, self._modality)
        return known

    def _whole_stack(self, key: int, former: Stack | None = None) -> Stack:
        """Return the stack of all sources around the centroids of this `id`."""
        known = self._whole.get(key)
        if known is None:
            sources = self._around_each(self.all)[key]
            same = (stack for stack in self.stacks if len(stack.sources) == len(sources))
            plain = next((stack for stack in same if id(stack.centroids) == key), None)
            known = self._whole[key] = plain or Stack(sources, self._modality, former)
        return known

    def _around_each(self, sources: Iterable[ShardSource]) -> Mapping[int, Sequence[ShardSource]]:
        """Return the sources that can be stacked, by the `id` of the centroids that they lie around."""
        groups: defaultdict[int, list[ShardSource]] = defaultdict(list)
        for source in sources:
            part = source.rows.part_of_stack(self._modality)
            if part is not None:
                groups[id(part.lists.centroids)].append(source)
        return groups

    def split_few(self, queries: Queries, row_filter: RowFilter) -> tuple[list[FewOfAll], list[ShardSource]]:
        """Return what a filter leaves few rows of, at most one for all, and the other sources."""
        parts, others = [], []
        for first_row, source in zip(self._numbered.first_rows, self.all, strict=True):
            few = source.rows.eligible(self._modality, row_filter).few_rows(queries)
            if few is None:
                others.append(source)
            else:
                parts.append((first_row, few))
        return [FewOfAll(self._numbered, parts)] if parts else [], others

    @cached_property
    def _numbered(self) -> NumberedSources:
        return NumberedSources(self.all)


def _sources_of(shard: ShardView, modality: Modality) -> Sequence[ShardSource]:
    return [ShardSource(shard.name, source) for source in shard.sources(modality)]


def _find_around(sources: Iterable[ShardSource], modality: Modality) -> Mapping[int, Around]:
    """Return the lists of all shards around the same centroids together, by the `id` of these."""
    parts: defaultdict[int, list[Around]] = defaultdict(list)
    for lists in filter(None, (source.rows.lists(modality) for source in sources)):
        parts[id(lists.centroids)].append(lists.around)
    return {key: join_around(arounds) for key, arounds in parts.items()}


def _stack(
    sources: Iterable[ShardSource], modality: Modality, former: Sequence[Stack]
) -> tuple[list[Stack], list[ShardSource]]:
    """Return stacks of what can be stacked, and the other sources."""
    alone: list[ShardSource] = []
    groups: defaultdict[int, list[ShardSource]] = defaultdict(list)
    for source in sources:
        part = source.rows.part_of_stack(modality)
        has_dead = source.rows.eligible(modality, None).nodes is not None
        (alone if part is None or has_dead else groups[id(part.lists.centroids)]).append(source)
    are_stacked = [len(group) >= _MIN_STACKED or _has_codes(group[0], modality) for group in groups.values()]
    known = {id(stack.centroids): stack for stack in former}
    stacks = [Stack(group, modality, known.get(key)) for key, group in compress(groups.items(), are_stacked)]
    alone += [source for group in compress(groups.values(), map(not_, are_stacked)) for source in group]
    return stacks, alone


def _has_codes(source: ShardSource, modality: Modality) -> bool:
    lists = source.rows.lists(modality)
    return lists is not None and lists.scan_codes is not None
