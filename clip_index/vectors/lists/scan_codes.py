"""Codes of 1.5 to 3 bits a dimension beside inverted lists, from which a long scan takes candidates.

Where data has no clusters, a query scans a fifth of all embeddings, and the scan waits for memory. Codes of
a product quantiser ("PQ fast scan": André, Kermarrec and Le Scouarnec, "Quicker ADC", 2019) are a tenth to
a fifth of the bytes, and FAISS compares 32 of them at once in registers. They code what an embedding differs
from the centroid of its list (`clip_index/vectors/lists/codebook.py`). The best by codes are scored again
from their fp16 embeddings.

A segment's codes are one array of bytes. List after list it has blocks of 32 codes, as FAISS's registers
take them, and then the ids of the nodes. The last block is filled up. So FAISS can map them where they lie.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
import xxhash
from numpy.lib import format as npy
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.errors import DamagedFile
from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import ByteSink
from clip_index.vectors.lists.codebook import BITS, Codebook, CodedQueries
from clip_index.vectors.queries import Queries

_CODE_BLOCK = 32
_MAX_FILLED = 3
"""Times the nodes. Beyond, a scan of codes reads little less than one of the embeddings."""
_ONE_QUERY = 11  # FAISS's scan for one query that collects many results: a tenth faster than what it chooses
_ID_BYTES = 8
_ENCODED = 16_384  # nodes at once: 50 MB of 512 dimensions
_POSITION_BITS = 20
_LIST_BITS = 20
_POSITIONS = (1 << _POSITION_BITS) - 1
_FILE_SHIFT = _POSITION_BITS + _LIST_BITS
_TAGS = 1 << (63 - _FILE_SHIFT)


class _Layout:
    """Where lists of given lengths lie in the array of a segment's codes."""

    def __init__(self, lengths: NDArray[np.int64], code_bytes: int) -> None:
        self.code_bytes = code_bytes
        self.lengths = lengths
        self.room = _room(lengths)
        ends = np.cumsum(self.room) * (self.code_bytes + _ID_BYTES)
        self.offsets = np.concatenate([[0], ends])[:-1]
        self.num_bytes = int(ends[-1])


class ListCodes(NamedTuple):
    """Codes to be written of embeddings, (nodes, dimension), of which node n lies in list `lists[n]`."""

    embeddings: NDArray[np.float16]
    lists: NDArray[np.int64]
    centroids: Embeddings
    codebook: Codebook

    def write(self, file: ByteSink) -> None:
        lengths = np.bincount(self.lists, minlength=len(self.centroids))
        layout = _Layout(lengths, self.codebook.code_bytes)
        shape = (layout.num_bytes,)
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        tag = xxhash.xxh3_64_intdigest(np.ascontiguousarray(self.embeddings[:1024]).data) % _TAGS
        encoder = _Encoder(self.codebook)
        nodes = np.argsort(self.lists, kind="stable")
        starts = np.concatenate([[0], np.cumsum(layout.lengths)])
        for part in _parts(layout.room):
            members = nodes[starts[part.start] : starts[part.stop]]
            lengths, ends = layout.lengths[part], np.cumsum(layout.room[part])
            positions = np.arange(len(members)) - np.repeat(starts[part] - starts[part.start], lengths)
            places = np.repeat(ends - layout.room[part], lengths) + positions
            filled, ids = np.full((2, ends[-1]), -1)
            filled[places] = members
            ids[places] = tag << _FILE_SHIFT | self.lists[members] << _POSITION_BITS | positions
            codes = self._encode(encoder, filled)
            for of_list, its_ids in zip(np.split(codes, ends[:-1]), np.split(ids, ends[:-1]), strict=True):
                file.write(of_list.data)
                file.write(its_ids.data)

    def _encode(self, encoder: _Encoder, nodes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the codes of nodes in whole blocks, with −1 where a block is filled up.

        A list may hold a large part of the nodes. Only some of them are there as float32 at a time.
        """
        at_once = -(-_ENCODED // _CODE_BLOCK) * _CODE_BLOCK
        parts = [nodes[first : first + at_once] for first in range(0, len(nodes), at_once)]
        return np.concatenate([encoder.encode(self._inputs(part)) for part in parts or [nodes]])

    def _inputs(self, nodes: NDArray[np.int64]) -> Embeddings:
        """Return what the codes of nodes stand for, (n, inputs); 0 for −1."""
        inputs = np.zeros((len(nodes), self.codebook.num_inputs), np.float32)
        members = nodes[nodes >= 0]
        differences = self.embeddings[members] - self.centroids[self.lists[members]]
        inputs[nodes >= 0] = self.codebook.inputs_of(differences)
        return inputs


def should_write(lists: NDArray[np.int64], num_lists: int) -> bool:
    """Whether codes of nodes, which lie in lists, (n,), are worth their bytes.

    Lists of few nodes would be filled up to many times their length. A small segment of a large index has
    such lists. An id must also have room for each node's list, and for its position there.
    """
    lengths = np.bincount(lists, minlength=num_lists)
    is_short = int(_room(lengths).sum()) > _MAX_FILLED * len(lists)
    return not is_short and num_lists <= 1 << _LIST_BITS and int(lengths.max(initial=0)) <= _POSITIONS


def _room(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many codes lists of given lengths have in whole blocks."""
    return -(-lengths // _CODE_BLOCK) * _CODE_BLOCK


def _parts(room: NDArray[np.int64]) -> Iterator[slice]:
    """Yield lists that together are encoded at once; at least one list."""
    first, ends = 0, np.cumsum(room)
    while first < len(room):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _ENCODED, side="right")))
        yield slice(first, last)
        first = last


class _Encoder:
    """Lays codes out in blocks of 32, as FAISS scans them."""

    def __init__(self, codebook: Codebook) -> None:
        num_inputs = codebook.num_inputs
        self._index = faiss.IndexPQFastScan(num_inputs, codebook.num_codes, BITS, faiss.METRIC_INNER_PRODUCT)
        codebook.fill(self._index.pq)
        self._index.is_trained = True

    def encode(self, inputs: Embeddings) -> NDArray[np.uint8]:
        """Return the codes, (n, bytes), of whole blocks of inputs, (n, inputs)."""
        self._index.reset()
        if not len(inputs):
            return np.empty((0, int(self._index.code_size)), np.uint8)
        self._index.add(inputs)
        codes: NDArray[np.uint8] = faiss.vector_to_array(self._index.codes)
        return codes.reshape(len(inputs), -1)


class ScanCodes:
    """The codes of one segment's lists, mapped. Immutable and thread-safe."""

    def __init__(self, part: MappedPart, lengths: NDArray[np.int64], codebook: Codebook) -> None:
        """`lengths` are those of the lists, (lists,). `DamagedFile` if the part does not fit them.

        `FileNotFoundError` if the file was collected. It may be collected later, because FAISS has mapped it.
        """
        self.codebook = codebook
        self._layout = _Layout(lengths, codebook.code_bytes)
        self._array = map_array(part)
        if self._array.dtype != np.uint8 or self._array.shape != (self._layout.num_bytes,):
            expected = f"{self._layout.num_bytes} bytes of codes"
            raise DamagedFile(part.path, f"{self._array.dtype} {self._array.shape}, where {expected} belong")
        self.tag = self._read_tag()
        self.stored_lists = self._map_lists(part)
        """FAISS's lists."""

    def _read_tag(self) -> int:
        """Read the number that the ids of this file have in common."""
        first = int(np.argmax(self._layout.lengths > 0))
        begin = int(self._layout.offsets[first] + self._layout.room[first] * self._layout.code_bytes)
        return int(self._array[begin : begin + _ID_BYTES].view(np.int64)[0]) >> _FILE_SHIFT

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self._layout.lengths

    def _map_lists(self, part: MappedPart) -> Any:
        """Let FAISS map the lists itself, of a file that it opens by its name."""
        lists = faiss.OnDiskInvertedLists()
        lists.nlist, lists.code_size = len(self.lengths), self._layout.code_bytes
        lists.filename, lists.read_only, lists.prefetch_nthread = str(part.path), True, 0
        first = part.offset + part.data.size - self._layout.num_bytes
        lists.totsize = first + self._layout.num_bytes
        places = np.stack([self.lengths, self._layout.room, self._layout.offsets + first], axis=1)
        lists.lists.resize(len(places))
        places = np.ascontiguousarray(places, np.uint64)
        ctypes.memmove(int(lists.lists.data().this), places.ctypes.data, places.nbytes)
        try:
            lists.do_mmap()
        except RuntimeError as error:  # every exception of FAISS is a RuntimeError
            part.path.stat()  # raises FileNotFoundError for a file that was collected, which is not damage
            raise DamagedFile(part.path, str(error).strip().splitlines()[-1]) from error
        return lists


class Candidates(NamedTuple):
    """Scores by codes, (n,), best first, and ids, (n,), of which `StackedCodes.find` tells whose they are."""

    scores: NDArray[np.float32]
    ids: NDArray[np.int64]


class Places(NamedTuple):
    """File, list and position of some nodes, all (n,)."""

    files: NDArray[np.int64]
    lists: NDArray[np.int64]
    positions: NDArray[np.int64]


class StackedCodes:
    """The codes of many files around the same centroids, scanned in one call. Immutable, thread-safe."""

    def __init__(self, files: Sequence[tuple[int, ScanCodes]]) -> None:
        """Each file has a number. Its codes have a tag that no other file's have."""
        self._numbered = list(files)
        self._files = tuple(codes for _, codes in files)  # kept alive, because FAISS reads their lists
        by_tag = sorted((codes.tag, number) for number, codes in files)
        self._tags = np.array([tag for tag, _ in by_tag])
        self._numbers = np.array([number for _, number in by_tag])
        self._num_lists = len(self._files[0].lengths)
        self._first_lists = (np.arange(len(files)) * self._num_lists)[:, None]
        self._codebook = self._files[0].codebook
        self._index, self._stack = _stack(self._files)
        self._lengths = np.sum([codes.lengths for codes in self._files], axis=0)
        self.numbers = frozenset(number for number, _ in files)

    def has(self, files: Sequence[tuple[int, ScanCodes]]) -> bool:
        """Whether these are the files, each with its number."""
        return self._numbered == files

    def count(self, lists: NDArray[np.int64]) -> int:
        """Return how many nodes lie in some lists, (n,), of all files."""
        return int(self._lengths.take(lists).sum())

    def code_query(self, query: Queries) -> CodedQueries:
        """Return a single query as the codes are compared with it."""
        return self._codebook.code_queries(query.along(self._codebook))

    def scan(
        self,
        query: CodedQueries,
        k: int,
        lists: NDArray[np.int64],
        scores: NDArray[np.float32],
        parameters: Any,
    ) -> Candidates:
        """Return up to k nodes of one query in some lists, (n,), by the scores of their codes.

        `scores`, (n,), are the query's with the centroids of the lists. `parameters` are for a scan of n
        lists in each file.
        """
        probed = (lists + self._first_lists).ravel()
        their_scores = np.concatenate([scores] * len(self._files))
        found, ids = np.empty(k, np.float32), np.empty(k, np.int64)
        self._index.search_preassigned_c(
            1,
            faiss.swig_ptr(query.inputs),
            k,
            faiss.swig_ptr(probed),
            faiss.swig_ptr(their_scores),
            faiss.swig_ptr(found),
            faiss.swig_ptr(ids),
            False,
            parameters,
        )
        if ids[-1] < 0:
            found, ids = found[ids >= 0], ids[ids >= 0]
        return Candidates(found, ids)

    def find(self, ids: NDArray[np.int64]) -> Places:
        """Return where the nodes of ids, (n,), lie."""
        files = self._numbers[self._tags.searchsorted(ids >> _FILE_SHIFT)]
        return Places(files, ids >> _POSITION_BITS & ((1 << _LIST_BITS) - 1), ids & _POSITIONS)

    def num_probed(self, num_lists: int) -> int:
        """Return how many lists of all files are scanned for so many of one."""
        return num_lists * len(self._files)


def _stack(files: Sequence[ScanCodes]) -> tuple[Any, Any]:
    """Return a FAISS index over the codes of all files, and their lists. Callers keep the files alive."""
    lists = faiss.InvertedListsPtrVector()
    for one in files:
        lists.push_back(one.stored_lists)
    stack = faiss.VStackInvertedLists(lists.size(), lists.data())
    codebook = files[0].codebook
    index = faiss.IndexIVFPQFastScan(
        faiss.IndexFlatIP(codebook.num_inputs),  # an empty one, because the lists are given to each scan
        codebook.num_inputs,
        int(stack.nlist),
        codebook.num_codes,
        BITS,
        faiss.METRIC_INNER_PRODUCT,
        _CODE_BLOCK,
        False,  # no lists of its own
    )
    index.by_residual = True
    index.implem = _ONE_QUERY
    codebook.fill(index.pq)
    index.replace_invlists(stack)
    index.is_trained = True
    index.ntotal = sum(int(one.lengths.sum()) for one in files)
    return index, stack
