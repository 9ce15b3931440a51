"""What a search of one modality asks, prepared once for a searcher.

Most lists lie around the same centroids. A plain search scans those of all shards in one call, as a stack.
A search with a filter, one that is traced by shard, and what cannot be stacked take a call for each segment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, compress
from operator import not_
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.joined_trial import try_together
from clip_index.vectors.lists.list_members import ListedSelection, listed
from clip_index.vectors.lists.stacked_lists import StackedLists
from clip_index.vectors.queries import Around, Queries, Reach, join_around
from clip_index.vectors.stacked_rows import StackedRows
from clip_index.views.best_rows import RowScores, Thinned, find_best_distinct_rows, find_best_few_rows
from clip_index.views.eligible import FewRows
from clip_index.views.numbered_rows import NumberedRows, starts_of
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import Location, ShardView
from clip_index.views.tail import Tail

_MIN_STACKED = 2
"""A single file without codes is searched as fast alone."""


_KEPT_BESIDE = 16
"""Beside twice the wanted nodes. Equal scores are asked for again, and quantised lists ask for candidates."""


class ShardSource(NamedTuple):
    """A segment or a tail of one shard."""

    shard: str
    rows: SegmentView | Tail

    def locate(self, row: int) -> Location:
        view, own_row = self.rows.locate(row)
        return Location(self.shard, view, own_row)

    def search(
        self, queries: Queries, k: int, modality: Modality, row_filter: RowFilter | None, reach: Reach
    ) -> list[RowScores]:
        return self.rows.search(queries, k, modality, row_filter, reach)


class _NumberedSources:
    """Sources whose rows are numbered through. Immutable and thread-safe."""

    def __init__(self, sources: Sequence[ShardSource]) -> None:
        self._views = [(source.shard, view) for source in sources for view in source.rows.views]
        num_rows = [[view.segment.num_rows for view in source.rows.views] for source in sources]
        self._rows = NumberedRows(chain.from_iterable(num_rows))
        self.first_rows = starts_of(map(sum, num_rows))

    def locate(self, row: int) -> Location:
        number, own_row = self._rows.locate(row)
        return Location(*self._views[number], own_row)

    def content_ids(self, rows: NDArray[np.int64]) -> pa.Array:
        return self._rows.content_ids(rows, lambda number, own: self._views[number][1].content_ids(own))


class Stack:
    """Segments and tails of all shards around the same centroids; all of them have dead rows, or none.

    Their rows are numbered through. Immutable and thread-safe.
    """

    def __init__(
        self, sources: Sequence[ShardSource], modality: Modality, former: Stack | None = None
    ) -> None:
        """`former` is an earlier stack around the same centroids."""
        parts = [part for source in sources if (part := source.rows.part_of_stack(modality))]
        self._lists: StackedLists = StackedLists(
            [part.lists for part in parts], former._lists if former else None
        )
        self._sources = _NumberedSources(sources)
        self._first_rows = np.array(self._sources.first_rows)
        self._node_rows = StackedRows([part.node_rows for part in parts], self._sources.first_rows)
        self._eligible = [source.rows.eligible(modality, None) for source in sources]
        num_live = sum(eligible.nodes.num_nodes for eligible in self._eligible if eligible.nodes is not None)
        self._live_share = max(1, num_live) / self._lists.num_nodes

    @property
    def centroids(self) -> Any:
        """The FAISS index of the centroids."""
        return self._lists.around.centroids

    def locate(self, row: int) -> Location:
        return self._sources.locate(row)

    def search(self, queries: Queries, k: int) -> list[RowScores]:
        """Return the k best rows of each query in the near lists."""
        return find_best_distinct_rows(self._lists, self._node_rows, queries, k, self._sources.content_ids)

    def search_thinned(self, queries: Queries, k: int, num_near: NDArray[np.int64]) -> list[RowScores]:
        """Return the k best live rows of each query in its first lists, as many as `num_near`, (q,), says."""
        thinned = Thinned(num_near, self._live_share, self._are_live)
        ids_of_rows = self._sources.content_ids
        return find_best_distinct_rows(self._lists, self._node_rows, queries, k, ids_of_rows, thinned)

    def _are_live(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        files = np.searchsorted(self._first_rows, rows, side="right") - 1
        own_rows = rows - self._first_rows[files]
        are_live = np.ones(len(rows), np.bool_)
        for file in set(files.tolist()):
            is_here = files == file
            alive = self._eligible[file].are_rows(own_rows[is_here])
            if alive is not None:
                are_live[is_here] = alive
        return are_live


class FewOfAll:
    """The few rows that a filter leaves of segments and tails. They are scanned in one call."""

    def __init__(self, sources: _NumberedSources, parts: Sequence[tuple[int, FewRows]]) -> None:
        """`parts` are the number of each source's first row, and its rows."""
        self._sources = sources
        self._parts = parts

    def locate(self, row: int) -> Location:
        return self._sources.locate(row)

    def search(self, queries: Queries, k: int) -> list[RowScores]:
        """Return the k best of the rows."""
        return find_best_few_rows(self._parts, queries, k, self._sources.content_ids)


Source: TypeAlias = "ShardSource | Stack | FewOfAll"


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
        self._prepare_thinned()

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
        self, queries: Queries, k: int, untried: Iterable[tuple[list[int], NDArray[np.int64]]]
    ) -> tuple[list[tuple[Stack, list[RowScores]]], list[ShardSource]]:
        """Return what stacks of sources with dead rows have to offer, and the other sources beside stacks.

        `untried` is what `try_together` returns for `alone`.
        """
        found, stacked = [], set[int]()
        for numbers, num_near in untried:
            members = tuple(n for n in numbers if self.alone[n].rows.part_of_stack(self._modality))
            if members:
                stack = self._thinned_stack(members)
                found.append((stack, stack.search_thinned(queries, k, num_near)))
                stacked.update(members)
        return found, [source for number, source in enumerate(self.alone) if number not in stacked]

    def _prepare_thinned(self) -> None:
        """Build the stacks that most searches ask for, so that the first one need not."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for number, source in enumerate(self.alone):
            part = source.rows.part_of_stack(self._modality)
            if part is not None and source.rows.eligible(self._modality, None).nodes is not None:
                groups[id(part.lists.centroids)].append(number)
        for numbers in groups.values():
            self._thinned_stack(tuple(numbers))

    def _thinned_stack(self, members: tuple[int, ...]) -> Stack:
        known = self._thinned.get(members)
        if known is None:
            stack = Stack([self.alone[number] for number in members], self._modality)
            known = self._thinned[members] = stack
        return known

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
    def _numbered(self) -> _NumberedSources:
        return _NumberedSources(self.all)


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
