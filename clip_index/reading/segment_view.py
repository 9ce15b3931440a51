"""A segment together with its dead rows, as one generation shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.content import Modality
from clip_index.generations.tombstones import live_rows_mask, row_numbers
from clip_index.row_filter import RowFilter
from clip_index.segments.segment import FoundEntry, Segment
from clip_index.storage.bounded_cache import BoundedCache
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.queries import Queries
from clip_index.vectors.vector_file import VectorFile
from clip_index.vectors.vectors import NodeSelection

_NUM_CACHED_FILTERS = 32


@dataclass(frozen=True, slots=True)
class RowScores:
    """The best live rows of one query: scores (n,) float32, best first, and rows (n,)."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]

    def first(self, k: int) -> RowScores:
        return self if len(self.rows) <= k else RowScores(self.scores[:k], self.rows[:k])


@dataclass(frozen=True, slots=True)
class Eligible:
    """The rows that a search may return, as a mask (rows,), and the nodes of such rows. None means all."""

    is_row: NDArray[np.bool_] | None
    nodes: NodeSelection | None


class SegmentView:
    """The live rows of a segment. Immutable and thread-safe."""

    def __init__(self, segment: Segment, dead: BitMap, former: SegmentView | None = None) -> None:
        """`former` is a view of the same segment in another generation, earlier or later.

        If it has no dead row that is alive here, only the rows that died since are looked at.
        """
        self.segment = segment
        self.dead = dead
        self._filtered: BoundedCache[str, Eligible] = BoundedCache(_NUM_CACHED_FILTERS)
        self._live_nodes: dict[Modality, NodeSelection] = {}
        self._is_live: NDArray[np.bool_] | None = None
        if former is not None and former._is_live is not None and former.dead.issubset(dead):
            self._is_live = former._is_live.copy()
            self._derive_from(former, self._is_live)
            return
        if dead:
            self._is_live = live_rows_mask(dead, segment.num_rows)
        self._num_live = self._count_live()

    def _derive_from(self, former: SegmentView, is_live: NDArray[np.bool_]) -> None:
        """Start from the former view's mask and counts and subtract the rows that have died since."""
        died = row_numbers(self.dead - former.dead)
        is_live[died] = False
        num_images = int(np.count_nonzero(self.segment.is_image[died]))
        num_died: dict[Modality, int] = {"image": num_images, "text": len(died) - num_images}
        self._num_live = {modality: former.num_live[modality] - num_died[modality] for modality in num_died}
        for modality, live_nodes in former._live_nodes.copy().items():
            file = self.segment.vector_files[modality]
            self._live_nodes[modality] = file.vectors.deselect(
                live_nodes, file.node_rows.nodes_left_without(is_live, died)
            )

    @property
    def num_live(self) -> Mapping[Modality, int]:
        return self._num_live

    def _count_live(self) -> dict[Modality, int]:
        is_image = self.segment.is_image
        is_live = np.ones(len(is_image), np.bool_) if self._is_live is None else self._is_live
        num_images = int(np.count_nonzero(is_image & is_live))
        return {"image": num_images, "text": int(np.count_nonzero(is_live)) - num_images}

    def locate(self, row: int) -> tuple[SegmentView, int]:
        return self, row

    def is_live(self, row: int) -> bool:
        return self._is_live is None or bool(self._is_live[row])

    def find(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, FoundEntry]]:
        """Yield `(position in ids, entry)` for live rows only."""
        for position, found in self.segment.find_ids(ids, hashes):
            if found.row is not None and self.is_live(found.row):
                yield position, found

    def search(
        self, queries: Queries, k: int, modality: Modality, row_filter: RowFilter | None = None
    ) -> list[RowScores]:
        """Return k distinct live rows of each query; fewer only if fewer can be found."""
        file = self.segment.vector_files.get(modality)
        if file is None:
            return [_NOTHING] * len(queries)
        eligible = self._find_eligible(file, modality, row_filter)
        num_nodes = min(k, file.num_nodes)
        while True:
            scores, nodes = file.vectors.search(queries, num_nodes, eligible.nodes)
            found = [
                expand(s, n, file.node_rows, eligible).first(k) for s, n in zip(scores, nodes, strict=True)
            ]
            if num_nodes == file.num_nodes or all(len(rows.rows) >= k for rows in found):
                return found
            if nodes[:, -1].max() < 0:
                return found  # no query has a further node
            num_nodes = min(2 * num_nodes, file.num_nodes)  # several windows of one text took the room

    def _find_eligible(self, file: VectorFile, modality: Modality, row_filter: RowFilter | None) -> Eligible:
        if row_filter is not None:
            key = f"{modality} {row_filter.key}"
            return self._filtered.find_or_build(key, lambda: _select(file, self.eligible_rows(row_filter)))
        if self._is_live is None:
            return ALL_ELIGIBLE
        if modality not in self._live_nodes:
            self._live_nodes[modality] = _select_nodes(file, self._is_live)
        return Eligible(self._is_live, self._live_nodes[modality])

    def are_eligible(self, rows: NDArray[np.int64], row_filter: RowFilter | None) -> NDArray[np.bool_]:
        """Return which of the given rows, (n,), are alive and pass the filter."""
        are_eligible = np.ones(len(rows), np.bool_) if self._is_live is None else self._is_live[rows]
        if row_filter is not None:
            are_eligible &= self.segment.row_mask(row_filter)[rows]
        return are_eligible

    def eligible_rows(self, row_filter: RowFilter | None) -> NDArray[np.bool_]:
        """Return the live rows that pass the filter, as a mask (rows,)."""
        is_row = np.ones(self.segment.num_rows, np.bool_) if self._is_live is None else self._is_live.copy()
        if row_filter is not None:
            is_row &= self.segment.row_mask(row_filter)
        return is_row


def _select(file: VectorFile, is_row: NDArray[np.bool_]) -> Eligible:
    return Eligible(is_row, _select_nodes(file, is_row))


def _select_nodes(file: VectorFile, is_row: NDArray[np.bool_]) -> NodeSelection:
    return file.vectors.select(file.node_rows.eligible_nodes(is_row))


def expand(
    scores: NDArray[np.float32], nodes: NDArray[np.int64], node_rows: NodeRows, eligible: Eligible
) -> RowScores:
    """Turn nodes into rows.

    A node of identical contents gives several rows, and several windows of a text give one row.
    """
    if nodes[-1] < 0:
        scores, nodes = scores[nodes >= 0], nodes[nodes >= 0]
    positions, rows = node_rows.rows_of(nodes)
    if positions is not None:
        scores = scores[positions]
    if eligible.is_row is not None:
        is_kept = eligible.is_row[rows]
        scores, rows = scores[is_kept], rows[is_kept]
    if not node_rows.has_distinct_rows:
        first = np.sort(np.unique(rows, return_index=True)[1])  # the best window of a text comes first
        scores, rows = scores[first], rows[first]
    return RowScores(scores, rows)


ALL_ELIGIBLE = Eligible(None, None)
_NOTHING = RowScores(np.empty(0, np.float32), np.empty(0, np.int64))
