"""The small segments of a shard, searched as one.

Ingestion leaves a few large segments and a tail of small ones. Scanning a small segment costs
less than the calls around the scan. So the small flat vector files of a shard are joined in
memory, up to a bound. There are two blocks of them: a settled one that stays as it is, and a growing
one, so that a commit copies little. Small files stay in the growing block until a merge has taken them,
because the settled block is built anew when it loses a file.

Beside a merged segment, both blocks use inverted lists around the centroids of that segment, and so are as
approximate as it is. Then a search scans them together with the merged segments of all shards in one call.
In a shard without a merged segment, a tail answers exactly what its segments would, searched one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

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
from clip_index.views.best_rows import RowScores, find_best_rows
from clip_index.views.eligible import ALL_ELIGIBLE, Eligible, eligible_of_mask
from clip_index.views.numbered_rows import NumberedRows, starts_of
from clip_index.views.segment_view import SegmentView

_MAX_NODES = 20_000  # 20 MB of 512 dimensions
_MAX_GROWING_NODES = 500
"""Of larger files, so many are added to the settled block. Fewer are copied at each commit."""

_MIN_SETTLED_NODES = 64
"""Smaller files are those of the first tier (`MergeSettings`), which the next merge takes."""

_NUM_CACHED_FILTERS = 32


def build_tails(
    views: Sequence[SegmentView],
    former: Mapping[Modality, Sequence[Tail]],
    max_nodes: int = _MAX_NODES,
    max_growing_nodes: int = _MAX_GROWING_NODES,
    min_settled_nodes: int = _MIN_SETTLED_NODES,
) -> dict[Modality, Sequence[Tail]]:
    """Join the smallest flat files of each modality, up to `max_nodes` nodes together.

    What is in `former` already is shared. Files of `min_settled_nodes` or more are added to the settled block
    when they have `max_growing_nodes` together.
    """
    modalities: set[Modality] = {modality for view in views for modality in view.segment.vector_files}
    tails: dict[Modality, Sequence[Tail]] = {}
    for modality in modalities:
        small, known = _find_small(views, modality, max_nodes), former.get(modality, ())
        settled = known[0] if known and known[0].joined.num_nodes >= max_growing_nodes else None
        blocks = _into_blocks(small, modality, settled, (max_growing_nodes, min_settled_nodes))
        guide, merged = _find_guide(views, modality), _files_gone(known, small, modality)
        joined = [_join(block, modality, guide, known, merged) for block in blocks if guide or len(block) > 1]
        if joined:
            tails[modality] = joined
    return tails


def _into_blocks(
    small: Sequence[SegmentView], modality: Modality, settled: Tail | None, bounds: tuple[int, int]
) -> list[list[SegmentView]]:
    """Divide segments into the settled block, which goes on with that of before, and the growing one."""
    max_growing_nodes, min_settled_nodes = bounds
    files = {view.segment.vector_files[modality]: view for view in small}
    is_whole = settled is not None and files.keys() >= set(settled.joined.files)
    kept = {file: files[file] for file in settled.joined.files} if settled and is_whole else {}
    to_settle = {
        file: view for file, view in files.items() if file not in kept and file.num_nodes >= min_settled_nodes
    }
    if sum(file.num_nodes for file in to_settle) >= max_growing_nodes:
        kept.update(to_settle)
    if not kept:
        return [list(small)] if small else []
    growing = [view for file, view in files.items() if file not in kept]
    return [list(kept.values()), growing] if growing else [list(kept.values())]


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
            _NUM_CACHED_FILTERS, size_of=attrgetter("nbytes")
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

    def eligible(self, _modality: Modality, row_filter: RowFilter | None) -> Eligible:
        """Return what the filter and the dead rows leave."""
        return self._find_eligible(row_filter)

    def part_of_stack(self, _modality: Modality) -> StackPart | None:
        """Return what a plain search can scan together with segments, dead rows included."""
        return self._part

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
        return eligible_of_mask(self.joined.vectors, self._node_rows, is_row)

    def _join_node_rows(self) -> NodeRows:
        files = self.joined.files
        first_nodes, first_rows = starts_of(file.num_nodes for file in files), self._rows.starts
        nodes = [f.node_rows.nodes + np.uint32(first) for f, first in zip(files, first_nodes, strict=True)]
        rows = [f.node_rows.rows + np.uint32(first) for f, first in zip(files, first_rows, strict=True)]
        pairs: NDArray[np.uint32] = np.stack([np.concatenate(nodes), np.concatenate(rows)])
        return NodeRows(pairs, self.joined.num_nodes)
