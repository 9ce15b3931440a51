"""Writes FAISS's file of inverted lists one list after another, so that their codes are never all in memory.

FAISS itself writes an index that it holds. Of a merged segment that would be a second copy of all
embeddings. The bytes are the same: tests compare them with those of FAISS's own writer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.storage.pack import ByteSink

CodesOf: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Returns the codes, (n, bytes), of some nodes, (n,)."""

_NO_LISTS = b"sprs" + bytes(8)  # how FAISS ends the file of an index with empty lists


def write_listed(file: ByteSink, index: Any, lists: NDArray[np.int64], codes_of: CodesOf) -> None:
    """Write an index of inverted lists, in which node n lies in list `lists[n]`.

    `index` is FAISS's and has no nodes. It says how many lists there are, and what a code is.
    """
    file.write(_header(index, len(lists)))
    lengths = np.bincount(lists, minlength=index.nlist)
    file.write(_dump_lengths(lengths))
    nodes = np.argsort(lists, kind="stable").astype(np.int64)
    for members in np.split(nodes, np.cumsum(lengths)[:-1]):
        if len(members):
            file.write(np.ascontiguousarray(codes_of(members)).data)
            file.write(members.data)


def _header(index: Any, num_nodes: int) -> bytes:
    """Return what FAISS writes before the lengths of the lists."""
    index.ntotal = num_nodes
    written: bytes = faiss.serialize_index(index).tobytes()
    index.ntotal = 0
    if not written.endswith(_NO_LISTS):
        raise RuntimeError("this version of FAISS writes inverted lists in another way")
    return written[: -len(_NO_LISTS)]


def _dump_lengths(lengths: NDArray[np.int64]) -> bytes:
    """Return the lengths of all lists; where most lists are empty, those of the others with their numbers."""
    filled = np.flatnonzero(lengths)
    if len(filled) > len(lengths) // 2:
        return b"full" + _dump_vector(lengths)
    return b"sprs" + _dump_vector(np.stack([filled, lengths[filled]], axis=1).ravel())


def _dump_vector(numbers: NDArray[np.int64]) -> bytes:
    return np.concatenate([[len(numbers)], numbers]).astype("<u8").tobytes()
