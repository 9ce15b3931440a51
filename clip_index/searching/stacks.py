"""Segments and tails of all shards that are searched in one call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from clip_index.vectors.lists.stacked_lists import StackedLists
from clip_index.vectors.queries import Queries, Reach
from clip_index.vectors.stacked_rows import StackedRows
from clip_index.views.best_rows import RowScores, Thinned, find_best_distinct_rows, find_best_few_rows
from clip_index.views.eligible import Eligible, FewRows
from clip_index.views.numbered_rows import NumberedRows, starts_of
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import Location
from clip_index.views.tail import Tail


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


class NumberedSources:
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
    """Segments and tails of all shards around the same centroids.

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
        self._sources = NumberedSources(sources)
        self._first_rows = np.array(self._sources.first_rows)
        self._node_rows = StackedRows([part.node_rows for part in parts], self._sources.first_rows)
        self._num_nodes = [part.lists.num_nodes for part in parts]
        self.sources = tuple(sources)

    @property
    def centroids(self) -> Any:
        """The FAISS index of the centroids."""
        return self._lists.around.centroids

    def locate(self, row: int) -> Location:
        return self._sources.locate(row)

    def search(self, queries: Queries, k: int) -> list[RowScores]:
        """Return the k best rows of each query in the near lists."""
        return find_best_distinct_rows(self._lists, self._node_rows, queries, k, self._sources.content_ids)

    def search_thinned(
        self, queries: Queries, k: int, num_near: NDArray[np.int64], eligible: Sequence[Eligible | None]
    ) -> list[RowScores]:
        """Return the k best eligible rows of each query in its first lists.

        `num_near`, (q,), tells how many lists. There is one of `eligible` for each source; None stands for no
        row.
        """
        num_eligible = sum(
            num_nodes if one.nodes is None else one.nodes.num_nodes
            for one, num_nodes in zip(eligible, self._num_nodes, strict=True)
            if one is not None
        )

        def are_eligible(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
            files = np.searchsorted(self._first_rows, rows, side="right") - 1
            own_rows = rows - self._first_rows[files]
            are_rows = np.ones(len(rows), np.bool_)
            for file in set(files.tolist()):
                is_here, of_file = files == file, eligible[file]
                found = np.zeros(1, np.bool_) if of_file is None else of_file.are_rows(own_rows[is_here])
                if found is not None:
                    are_rows[is_here] = found
            return are_rows

        thinned = Thinned(num_near, max(1, num_eligible) / self._lists.num_nodes, are_eligible)
        ids_of_rows = self._sources.content_ids
        return find_best_distinct_rows(self._lists, self._node_rows, queries, k, ids_of_rows, thinned)


class FewOfAll:
    """The few rows that a filter leaves of segments and tails. They are scanned in one call."""

    def __init__(self, sources: NumberedSources, parts: Sequence[tuple[int, FewRows]]) -> None:
        """`parts` are the number of each source's first row, and its rows."""
        self._sources = sources
        self._parts = parts

    def locate(self, row: int) -> Location:
        return self._sources.locate(row)

    def search(self, queries: Queries, k: int) -> list[RowScores]:
        """Return the k best of the rows."""
        return find_best_few_rows(self._parts, queries, k, self._sources.content_ids)


Source: TypeAlias = "ShardSource | Stack | FewOfAll"
