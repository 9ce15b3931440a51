"""The flat vector files of a tail as one index in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.flat_vectors import FlatVectors, add_flat, build_flat
from clip_index.vectors.lists.inverted_lists import InvertedLists, add_listed, build_lists
from clip_index.vectors.vector_file import VectorFile
from clip_index.vectors.vectors import Vectors


def join_vectors(
    files: tuple[VectorFile, ...],
    guide: InvertedLists | None = None,
    former: JoinedVectors | None = None,
    merged: Sequence[VectorFile] = (),
) -> JoinedVectors:
    """Join `files`: one or more, of one dimension. With a `guide` they lie in lists around its centroids.

    Only files that `former` does not begin with are read. `merged` are files that a merge may have taken.
    """
    if former is not None and former.files == files and former.guide is guide:
        return former
    if guide is not None:
        for file in files:
            file.lists_around(guide, merged)
    has_same_lists = former is not None and _centroids_of(former.guide) is _centroids_of(guide)
    return JoinedVectors(files, guide, former if has_same_lists else None)


class JoinedVectors:
    """Vector files that are copied to memory one after another; immutable and thread-safe."""

    def __init__(
        self,
        files: tuple[VectorFile, ...],
        guide: InvertedLists | None,
        former: JoinedVectors | None = None,
    ) -> None:
        """The guide of `former` has the same centroids."""
        self.files: tuple[VectorFile, ...] = files
        self.guide: InvertedLists | None = guide  # kept alive, because it owns the centroids
        known = former.files if former else ()
        if former is not None and files[: len(known)] == known:
            index: Any = former.index if files == known else _copy(former.index, guide)
            lists = former.lists
        else:
            known, index, lists = (), _build_empty(files[0].dimension, guide), np.empty(0, np.int64)
        new = files[len(known) :]
        if guide is None:
            for file in new:
                add_flat(index, file.read_nodes())
        else:
            lists = np.concatenate([lists, *(_add_listed(index, file, guide) for file in new)])
        self.index: Any = index
        self.lists: NDArray[np.int64] = lists
        """The list that each node lies in, (nodes,); empty without a guide.

        A file may have been asked for lists around other centroids since, and then for these again. A node
        between two centroids may be said to lie in the other list then.
        """
        self.vectors: Vectors = _open(index, lists, guide)

    @property
    def num_nodes(self) -> int:
        return self.vectors.num_nodes


def _centroids_of(guide: InvertedLists | None) -> Any:
    return None if guide is None else guide.centroids


def _build_empty(dimension: int, guide: InvertedLists | None) -> Any:
    """Lists are given to each search, so their index need not have the centroids, which a copy would copy."""
    return build_lists(build_flat(dimension), guide.around.num_lists) if guide else build_flat(dimension)


def _copy(index: Any, guide: InvertedLists | None) -> Any:
    if guide is None:
        return faiss.clone_index(index)
    copy = _build_empty(index.d, guide)
    index.copy_subset_to(copy, faiss.InvertedLists.SUBSET_TYPE_ID_RANGE, 0, index.ntotal)
    return copy


def _add_listed(index: Any, file: VectorFile, guide: InvertedLists) -> NDArray[np.int64]:
    """Add the nodes of a file; return their lists, (nodes,)."""
    lists = file.lists_around(guide)
    add_listed(index, file.read_nodes(), lists)
    return lists


def _open(index: Any, lists: NDArray[np.int64], guide: InvertedLists | None) -> Vectors:
    if guide is None:
        return FlatVectors(index)
    around = guide.around
    return InvertedLists(
        index, around.centroids, around.effort, lists, around.nodes_per_row, shared=guide.shared
    )
