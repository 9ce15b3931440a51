"""The small segments of a shard, searched as one.

Ingestion leaves a few large segments and a tail of small ones. Scanning a small segment costs
less than the calls around the scan. So the small flat vector files of a shard are joined in
memory, up to a bound, in blocks of files of one size, as merges have tiers. A commit extends a copy of
one block, and a merge changes two and leaves the others as they are.

Beside a merged segment, all blocks use inverted lists around the centroids of that segment, and so are as
approximate as it is. Then a search scans them together with the merged segments of all shards in one call.
In a shard without a merged segment, a tail answers exactly what its segments would, searched one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from clip_index.storage.bounded_cache import BoundedCache
from clip_index.vectors.joined_vectors import JoinedVectors, join_vectors
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.stacked_lists import StackPart, part_of_stack
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.queries import Queries, Reach
from clip_index.vectors.vector_file import VectorFile
from clip_index.views.best_rows import ALL_ELIGIBLE, Eligible, RowScores, find_best_rows
from clip_index.views.numbered_rows import NumberedRows, starts_of
from clip_index.views.segment_view import SegmentView

_MAX_NODES = 20_000  # 20 MB of 512 dimensions
_BOUNDS = (64, 512)
"""Files of fewer nodes lie in the first block, or in the second. These are the bounds of the first tiers of
merges (`MergeSettings`), so a merge takes its sources from one block, and adds its result to the next.
Without lists, a search takes a call for each block, so the first two are one."""

_MAX_GROWING_NODES = 500
"""A block of so few nodes in lists is copied at each commit."""

_NUM_CACHED_FILTERS = 32


def build_tails(
    views: Sequence[SegmentView],
    former: Mapping[Modality, Sequence[Tail]],
    max_nodes: int = _MAX_NODES,
    bounds: Sequence[int] = _BOUNDS,
    max_growing_nodes: int = _MAX_GROWING_NODES,
) -> dict[Modality, Sequence[Tail]]:
    """Join the smallest flat files of each modality, up to `max_nodes` nodes together.

    What is in `former` already is shared. `bounds` divide the files into blocks by their nodes. In lists a
    block grows until it has `max_growing_nodes`; then another one is begun.
    """
    modalities: set[Modality] = {modality for view in views for modality in view.segment.vector_files}
    tails: dict[Modality, Sequence[Tail]] = {}
    for modality in modalities:
        small, guide = _find_small(views, modality, max_nodes), _find_guide(views, modality)
        known = former.get(modality, ())
        if guide is None:
            blocks = [block for block in _by_size(small, modality, bounds[1:]) if len(block) > 1]
        else:
            is_full = [tail for tail in known if tail.joined.num_nodes >= max_growing_nodes]
            blocks = [
                part
                for block in _by_size(small, modality, bounds)
                for part in _without_full(block, modality, is_full)
            ]
        merged = _files_gone(known, small, modality)
        if blocks:
            tails[modality] = [_join(block, modality, guide, known, merged) for block in blocks]
    return tails


def _by_size(
    small: Iterable[SegmentView], modality: Modality, bounds: Sequence[int]
) -> list[list[SegmentView]]:
    """Divide segments into blocks, the largest first."""
    blocks: list[list[SegmentView]] = [[] for _ in range(len(bounds) + 1)]
    for view in small:
        blocks[bisect_right(bounds, view.segment.vector_files[modality].num_nodes)].append(view)
    return [block for block in reversed(blocks) if block]


def _without_full(
    block: Sequence[SegmentView], modality: Modality, full: Iterable[Tail]
) -> list[list[SegmentView]]:
    """Return the parts of a block that are full already, each by itself, and behind them the rest."""
    rest = {view.segment.vector_files[modality]: view for view in block}
    parts = [
        [rest.pop(file) for file in tail.joined.files]
        for tail in full
        if rest.keys() >= set(tail.joined.files)
    ]
    return [*parts, list(rest.values())] if rest else parts


def _files_gone(former: Iterable[Tail], small: Iterable[SegmentView], modality: Modality) -> list[VectorFile]:
    """Return the files of former tails that are there no more, because a merge has taken them."""
    there = {view.segment.vector_files[modality] for view in small}
    return [file for tail in former for file in tail.joined.files if file not in there]


def _join(
    block: Iterable[SegmentView],
    modality: Modality,
    guide: InvertedLists | None,
    former: Iterable[Tail],
    merged: Sequence[VectorFile],
) -> Tail:
    """Return a former tail, with what it remembers, if nothing has changed; else share its vectors."""
    view_of = {view.segment.vector_files[modality]: view for view in block}
    known = next((tail for tail in former if view_of.keys() >= set(tail.joined.files)), None)
    files = tuple(view_of) if known is None else tuple(dict.fromkeys([*known.joined.files, *view_of]))
    joined = join_vectors(files, guide, None if known is None else known.joined, merged)
    views = [view_of[file] for file in files]
    if known is None or joined is not known.joined:
        return Tail(views, joined)
    is_same = all(new is old for new, old in zip(views, known.views, strict=True))
    return known if is_same else Tail(views, joined)


def _find_guide(views: Iterable[SegmentView], modality: Modality) -> InvertedLists | None:
    """Return the lists of the largest merged segment; None while there is no such segment."""
    files = [view.segment.vector_files.get(modality) for view in views]
    lists = [file.lists for file in files if file is not None and file.lists is not None]
    return max(lists, key=lambda one: one.num_nodes, default=None)


def _find_small(views: Iterable[SegmentView], modality: Modality, max_nodes: int) -> list[SegmentView]:
    """Return the small segments in the order of `views`."""
    files = [(view, view.segment.vector_files.get(modality)) for view in views]
    flat = [(view, file.num_nodes) for view, file in files if file is not None and file.is_flat]
    by_size = sorted(range(len(flat)), key=lambda number: flat[number][1])
    totals = np.cumsum([flat[number][1] for number in by_size], dtype=np.int64)
    num_small = int(np.searchsorted(totals, max_nodes, side="right"))
    return [flat[number][0] for number in sorted(by_size[:num_small])]


class Tail:
    """Small segments, whose rows are numbered through one after another. Immutable and thread-safe."""

    def __init__(self, views: Sequence[SegmentView], joined: JoinedVectors) -> None:
        """`joined` are the vector files of `views`, in that order."""
        self.views = tuple(views)
        self.joined: JoinedVectors = joined
        self._rows = NumberedRows(view.segment.num_rows for view in views)
        self._node_rows = self._join_node_rows()
        self._has_dead = any(view.dead for view in views)
        num_rows = sum(view.segment.num_rows for view in views)
        self._part = part_of_stack(self.joined.vectors, self._node_rows, num_rows)
        self._eligible: BoundedCache[str, Eligible] = BoundedCache(
            _NUM_CACHED_FILTERS, size_of=lambda eligible: eligible.nbytes
        )

    def locate(self, row: int) -> tuple[SegmentView, int]:
        """Return the segment that a row of the tail lies in, and its row there."""
        number, own_row = self._rows.locate(row)
        return self.views[number], own_row

    def search(
        self,
        queries: Queries,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        reach: Reach = Reach.NEAR,
    ) -> list[RowScores]:
        """Return the k best live rows of each query within reach. `modality` is the tail's own."""
        return find_best_rows(
            self.joined.vectors,
            self._node_rows,
            queries,
            k,
            eligible=self._find_eligible(row_filter),
            reach=reach,
            ids_of_rows=self.content_ids,
        )

    def part_of_stack(self, _modality: Modality) -> StackPart | None:
        """Return what a plain search can scan together with segments; None with dead rows."""
        return None if self._has_dead else self._part

    def lists(self, _modality: Modality) -> InvertedLists | None:
        """Return the lists that a search scans; None if it scans everything."""
        vectors = self.joined.vectors
        return vectors if isinstance(vectors, InvertedLists) else None

    def has_rest(self, _modality: Modality) -> bool:
        """Whether a near search may leave out rows."""
        return self.joined.vectors.has_rest

    def content_ids(self, rows: NDArray[np.int64]) -> pa.Array:
        """Return the content ids of rows of the tail, each read from its own segment."""
        return self._rows.content_ids(rows, lambda number, own: self.views[number].content_ids(own))

    def _find_eligible(self, row_filter: RowFilter | None) -> Eligible:
        if row_filter is None and not self._has_dead:
            return ALL_ELIGIBLE
        key = row_filter.key if row_filter else ""
        return self._eligible.find_or_build(key, lambda: self._build_eligible(row_filter))

    def _build_eligible(self, row_filter: RowFilter | None) -> Eligible:
        is_row = np.concatenate([view.eligible_rows(row_filter) for view in self.views])
        return Eligible(is_row, self.joined.vectors.select(self._node_rows.eligible_nodes(is_row)))

    def _join_node_rows(self) -> NodeRows:
        files = self.joined.files
        first_nodes, first_rows = starts_of(file.num_nodes for file in files), self._rows.starts
        nodes = [f.node_rows.nodes + np.uint32(first) for f, first in zip(files, first_nodes, strict=True)]
        rows = [f.node_rows.rows + np.uint32(first) for f, first in zip(files, first_rows, strict=True)]
        pairs: NDArray[np.uint32] = np.stack([np.concatenate(nodes), np.concatenate(rows)])
        return NodeRows(pairs, self.joined.num_nodes)
