"""Codes of embeddings that are read one by one, from wherever they lie, and scanned as copies.

FAISS scans whole lists and whole files only, and asks for each node whether it is selected. If few nodes are
selected, copying their codes and scanning the copy costs far less: 0.03 ms for 125 of 25,000 nodes, where a
scan of the lists that asks each node took 0.17 ms, and ranking them 0.5 ms more. Codes of many files are
scanned in one call. The copy is scanned by the function of FAISS that scans the lists, so scores are equal
bit by bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.process_memory import ProcessMemory
from clip_index.vectors.queries import Found, Queries

# Measured for 512 dimensions in fp16 that no cache holds. Their ratios matter, not what they are.
SECONDS_OF_ASKING = 10e-9  # a node of a list or file that is scanned whether it is selected
SECONDS_OF_COPIED_NODE = 400e-9

_MAX_UNUSED = 16
_BLOCK = 1024  # nodes, 1 MB of 512 dimensions: the cache holds what is copied until it is scanned


class _Copies(NamedTuple):
    """An index of FAISS with room for codes, and that room, (block, bytes). One search uses it at a time."""

    index: Any
    room: NDArray[np.uint8]

    def search(self, queries: Queries, k: int, codes: NDArray[np.uint8]) -> Found:
        """Return the scores and the numbers of the k best of some codes, (n, bytes); −1 for fewer."""
        self.room[: len(codes)] = codes
        self.index.ntotal = len(codes)
        found = queries.empty(k)
        into = (faiss.swig_ptr(found[0]), faiss.swig_ptr(found[1]))
        self.index.search_c(len(queries), queries.pointer, k, *into, None)
        return found


class ScatteredCodes:
    """Codes of one kind by their addresses. Callers keep the memory there. Thread-safe."""

    def __init__(self, index: Any) -> None:
        """`index` is one of FAISS's that has such codes."""
        self._index = index
        self.code_size = int(index.code_size)
        self._memory = ProcessMemory(self.code_size)
        self._dimension = int(index.d)
        self._is_fp16 = index.sq.qtype == faiss.ScalarQuantizer.QT_fp16

    def embeddings(self, addresses: NDArray[np.int64]) -> Embeddings:
        """Return the embeddings of nodes, (n, dimension)."""
        codes = self._read(addresses)
        embeddings = np.empty((len(codes), self._dimension), np.float32)
        if len(codes):
            self._index.sq.decode_c(faiss.swig_ptr(codes), faiss.swig_ptr(embeddings), len(codes))
        return embeddings

    def search(self, queries: Queries, k: int, addresses: NDArray[np.int64]) -> Found:
        """Return the scores and the numbers, 0 … n − 1, of the k best of n nodes; −1 for fewer."""
        parts = []
        # Codes of 8 bits differ from file to file, so their room is made for each search.
        unused = _unused_copies(self._dimension, _BLOCK) if self._is_fp16 else []
        try:
            copies = unused.pop()
        except IndexError:
            copies = self._build_copies()
        for first in range(0, len(addresses), _BLOCK):
            block = addresses[first : first + _BLOCK]
            scores, numbers = copies.search(queries, k, self._read(block))
            if first:
                numbers[numbers >= 0] += first
            parts.append((scores, numbers))
        if len(unused) < _MAX_UNUSED:
            unused.append(copies)
        return best_of(parts, queries, k)

    def _build_copies(self) -> _Copies:
        copies = faiss.IndexScalarQuantizer(self._dimension, self._index.sq.qtype, self._index.metric_type)
        copies.sq = self._index.sq
        copies.is_trained = True  # with codes of 8 bits FAISS asks for it
        copies.codes.resize(_BLOCK * self.code_size)
        room = faiss.rev_swig_ptr(copies.codes.data(), _BLOCK * self.code_size)
        return _Copies(copies, room.reshape(_BLOCK, self.code_size))

    def _read(self, addresses: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return copies of codes, (n, bytes)."""
        codes = self._memory.read(addresses)
        return codes.view(np.uint8).reshape(len(addresses), self.code_size)


@cache
def _unused_copies(dimension: int, block: int) -> list[_Copies]:
    """Return room for blocks of fp16 codes that no search is using. The searches of all files share it.

    To make a megabyte of room took a tenth of a search with a filter that keeps few rows.
    """
    return []


def best_of(parts: list[Found], queries: Queries, k: int) -> Found:
    """Return the k best of several results."""
    if not parts:
        return queries.nothing(k)
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([part[0] for part in parts], axis=1)
    numbers = np.concatenate([part[1] for part in parts], axis=1)
    scores[numbers < 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
