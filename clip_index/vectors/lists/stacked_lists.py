"""The inverted lists of many files around the same centroids, scanned in one call.

All segments and tails of all shards are scanned in the same lists for a query. A call for each of them
costs about 15 µs in Python and FAISS beside the scan, and leaves k nodes of each to be ranked again. So the
lists of one file are stacked upon those of another: those of the second file have the numbers after those
of the first. Nothing is copied, so stacking a hundred files takes less than a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.search_parameters import SearchParameters
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.process_memory import ProcessMemory
from clip_index.vectors.queries import Found, NearLists, Queries, pointer_to_zeros
from clip_index.vectors.vectors import Vectors, clip_scores, use_one_thread

_LIST_BITS = 32  # FAISS's label of a node is the number of its list, and its position there in 32 bits
_POSITION = 2**_LIST_BITS - 1
_ID_SHIFT = 3
_IDS = ProcessMemory(1 << _ID_SHIFT)


class StackPart(NamedTuple):
    """The lists of one segment or tail, and its rows."""

    lists: InvertedLists
    node_rows: NodeRows
    num_rows: int


def part_of_stack(vectors: Vectors, node_rows: NodeRows, num_rows: int) -> StackPart | None:
    """Return what can be stacked, because a plain search of it needs no more than a scan of its near lists.

    Codes are scored again, each file's with its own bounds. Texts of several windows are completed.
    """
    if type(vectors) is not InvertedLists or not node_rows.has_distinct_rows:
        return None
    return StackPart(vectors, node_rows, num_rows)


class StackedLists:
    """Lists that can be stacked, all around the same centroids. Immutable and thread-safe."""

    def __init__(self, files: Sequence[InvertedLists]) -> None:
        self._files = tuple(files)  # kept alive, because FAISS reads their lists
        self._around = files[0].around
        self._num_lists = self._around.num_lists
        self._index, self._lists = _stack(files)
        self._first_lists = (np.arange(len(files)) * self._num_lists)[:, None]
        self.num_nodes = int(self._index.ntotal)
        self._first_ids = np.zeros(len(files) * self._num_lists, np.int64)
        """The address of each list's first id; 0 until somebody asks for it."""
        self._parameters = SearchParameters()

    def search(self, queries: Queries, k: int) -> Found:
        """Return the k best nodes of each query in the near lists of all files: scores and labels.

        −1 stands for fewer. `find` tells whose label it is.
        """
        use_one_thread()
        probed = self._probed(queries.near(self._around))
        num_probed = probed.shape[1]
        scores, labels = queries.empty(k)
        self._index.search_preassigned_c(
            len(queries),
            queries.pointer,
            k,
            faiss.swig_ptr(probed),
            pointer_to_zeros(probed.size),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(labels),
            True,  # return labels
            self._parameters.of(num_probed),
        )
        return clip_scores((scores, labels))

    def _probed(self, near: NearLists) -> NDArray[np.int64]:
        """Return the near lists in each file, (q, probes), in the order in which they lie there."""
        probed: NDArray[np.int64] = near.lists[:, None] + self._first_lists
        if len(probed) > 1:
            probed[np.broadcast_to(near.lists[:, None] < 0, probed.shape)] = -1
        return probed.reshape(len(probed), -1)

    def find(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the file that each label belongs to, and the node there, both (n,)."""
        lists = labels >> _LIST_BITS
        addresses = (labels & _POSITION) << _ID_SHIFT
        addresses += self._first_ids_of(lists)
        nodes: NDArray[np.int64] = _IDS.read(addresses).view(np.int64)
        return lists // self._num_lists, nodes

    def _first_ids_of(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the address of each list's first id. FAISS is asked once for a list."""
        found = self._first_ids.take(lists)
        if not found.all():
            for number in np.unique(lists[found == 0]).tolist():
                self._first_ids[number] = int(self._lists.get_ids(number))
            found = self._first_ids.take(lists)
        return found


def _stack(files: Sequence[InvertedLists]) -> tuple[Any, Any]:
    """Return a FAISS index over the lists of all files, and these lists. Callers keep the files alive."""
    lists = faiss.InvertedListsPtrVector()
    for one in files:
        lists.push_back(one.stored_lists)
    stack = faiss.VStackInvertedLists(lists.size(), lists.data())
    dimension = int(files[0].centroids.d)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension),  # an empty one, because the lists are given to each search
        dimension,
        int(stack.nlist),
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # no differences from the centroids
        False,  # no lists of its own
    )
    index.replace_invlists(stack)
    index.is_trained = True
    index.ntotal = sum(one.num_nodes for one in files)
    return index, stack
