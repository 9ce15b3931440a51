"""A segment together with its dead rows, as one generation shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.content import Modality
from clip_index.generations.tombstones import live_rows_mask, row_numbers
from clip_index.row_filter import RowFilter
from clip_index.segments.segment import Segment
from clip_index.segments.segment_ids import FoundEntry
from clip_index.storage.bounded_cache import BoundedCache
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.stacked_lists import StackPart, part_of_stack
from clip_index.vectors.queries import Queries, Reach
from clip_index.vectors.vector_file import VectorFile
from clip_index.views.best_rows import NO_ROWS, RowScores, find_best_rows
from clip_index.views.eligible import (
    ALL_ELIGIBLE,
    FEW_PART,
    Eligible,
    FewEligible,
    LiveEligible,
    RangeEligible,
    eligible_of_mask,
)

_NUM_CACHED_FILTERS = 32


class SegmentView:
    """The live rows of a segment. Immutable and thread-safe."""

    def __init__(self, segment: Segment, dead: BitMap, former: SegmentView | None = None) -> None:
        """`former` is a view of the same segment in another generation, earlier or later.

        If it has no dead row that is alive here, only the rows that died since are looked at.
        """
        self.segment = segment
        self.dead = dead
        self._filtered: BoundedCache[str, Eligible] = BoundedCache(
            _NUM_CACHED_FILTERS, size_of=attrgetter("nbytes")
        )
        self._live: dict[Modality, LiveEligible] = {}
        self._is_live_pair: dict[Modality, NDArray[np.bool_]] = {}
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
        for modality, live in former._live.copy().items():
            file = self.segment.vector_files[modality]
            left = file.vectors.deselect(live.nodes, file.node_rows.nodes_left_without(is_live, died))
            self._live[modality] = LiveEligible(is_live, left)

    @property
    def views(self) -> tuple[SegmentView, ...]:
        """The segments whose rows are searched, as a tail has several of them."""
        return (self,)

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

    def has_row(self, row_filter: RowFilter) -> bool:
        """Whether a live row passes the filter."""
        mask = self.segment.row_mask(row_filter)
        return bool(np.any(mask if self._is_live is None else mask & self._is_live))

    def is_live(self, row: int) -> bool:
        return self._is_live is None or bool(self._is_live[row])

    def find(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, FoundEntry]]:
        """Yield `(position in ids, entry)` for live rows only."""
        for position, found in self.segment.find_ids(ids, hashes):
            if found.row is not None and self.is_live(found.row):
                yield position, found

    def search(
        self,
        queries: Queries,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        reach: Reach = Reach.NEAR,
    ) -> list[RowScores]:
        """Return the k best live rows of each query within reach; fewer only where there are fewer."""
        file = self.segment.vector_files.get(modality)
        if file is None:
            return [NO_ROWS] * len(queries)
        return find_best_rows(
            file.vectors,
            file.node_rows,
            queries,
            k,
            eligible=self._find_eligible(file, modality, row_filter),
            reach=reach,
            ids_of_rows=self.segment.content_ids,
        )

    def part_of_stack(self, modality: Modality) -> StackPart | None:
        """Return what a plain search can scan together with other segments, dead rows included."""
        file = self.segment.vector_files.get(modality)
        return None if file is None else part_of_stack(file.vectors, file.node_rows, self.segment.num_rows)

    def content_ids(self, rows: NDArray[np.int64]) -> pa.Array:
        return self.segment.content_ids(rows)

    def lists(self, modality: Modality) -> InvertedLists | None:
        """Return the lists that a search of the modality scans; None if it scans everything."""
        file = self.segment.vector_files.get(modality)
        return None if file is None else file.lists

    def has_rest(self, modality: Modality) -> bool:
        """Whether a near search of the modality may leave out rows."""
        file = self.segment.vector_files.get(modality)
        return file is not None and file.vectors.has_rest

    def eligible(self, modality: Modality, row_filter: RowFilter | None) -> Eligible:
        """Return what the filter and the dead rows leave. The modality has vectors here."""
        return self._find_eligible(self.segment.vector_files[modality], modality, row_filter)

    def _find_eligible(self, file: VectorFile, modality: Modality, row_filter: RowFilter | None) -> Eligible:
        if row_filter is not None:
            key = f"{modality} {row_filter.key}"
            return self._filtered.find_or_build(key, lambda: self._select(file, modality, row_filter))
        if self._is_live is None:
            return ALL_ELIGIBLE
        if modality not in self._live:
            nodes = file.vectors.select(file.node_rows.eligible_nodes(self._is_live))
            self._live[modality] = LiveEligible(self._is_live, nodes)
        return self._live[modality]

    def _select(self, file: VectorFile, modality: Modality, row_filter: RowFilter) -> Eligible:
        """Look at the rows that pass only, if they are few and known without a look at all of them."""
        rows = self.segment.few_rows(row_filter)
        if rows is None:
            by_pairs = self._select_by_pairs(file, modality, row_filter)
            if by_pairs is not None:
                return by_pairs
            return eligible_of_mask(file.vectors, file.node_rows, self.eligible_rows(row_filter))
        if self._is_live is not None:
            rows = rows[self._is_live[rows]]
        return FewEligible(file.vectors, file.node_rows, rows)

    def _select_by_pairs(
        self, file: VectorFile, modality: Modality, row_filter: RowFilter
    ) -> RangeEligible | None:
        """Return what many rows a filter on ranges leaves; None for other filters, and for few rows."""
        is_pair = self.segment.pair_mask(modality, row_filter)
        if is_pair is None:
            return None
        if self._is_live is not None:
            is_pair &= self._live_pairs(file, modality)
        nodes = file.vectors.select(file.node_rows.nodes_of_pairs(is_pair))
        if nodes.num_nodes <= file.num_nodes // FEW_PART:
            return None
        return RangeEligible(nodes, partial(_may_answer, self.segment, self._is_live, modality, row_filter))

    def _live_pairs(self, file: VectorFile, modality: Modality) -> NDArray[np.bool_]:
        assert self._is_live is not None
        if modality not in self._is_live_pair:
            self._is_live_pair[modality] = file.node_rows.in_pair_order(self._is_live)
        return self._is_live_pair[modality]

    def are_eligible(self, rows: NDArray[np.int64], row_filter: RowFilter | None) -> NDArray[np.bool_]:
        """Return which of the given rows, (n,), are alive and pass the filter."""
        are_eligible = np.ones(len(rows), np.bool_) if self._is_live is None else self._is_live[rows]
        if row_filter is not None:
            are_eligible &= self.segment.row_mask(row_filter)[rows]
        return are_eligible

    def eligible_rows(self, row_filter: RowFilter | None) -> NDArray[np.bool_]:
        """Return the live rows that pass the filter, as a mask (rows,) that must not be changed."""
        if row_filter is None:
            return np.ones(self.segment.num_rows, np.bool_) if self._is_live is None else self._is_live
        mask = self.segment.row_mask(row_filter)
        return mask if self._is_live is None else mask & self._is_live


def _may_answer(
    segment: Segment,
    is_live: NDArray[np.bool_] | None,
    modality: Modality,
    row_filter: RowFilter,
    rows: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which of some rows, (n,), are alive and pass a filter that was evaluated by pairs.

    No method of a view, because the view's own cache would keep the view alive.
    """
    passes = segment.rows_pass(modality, row_filter, rows)
    return passes if is_live is None else passes & is_live[rows]
