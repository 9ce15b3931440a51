"""Sorted 64-bit hashes of ids: bulk look-up without a Python object per row.

On disk a table is one `.npy` of shape (2, n), uint64: the hashes, ascending, and the entry of
each. Several entries may share a hash, so the caller compares the ids themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import MappedPart

IdTable: TypeAlias = NDArray[np.uint64]
_HashBlock: TypeAlias = Callable[[Sequence[Any]], NDArray[np.uint64]]
_BLOCK = 65536

_NONE = np.empty(0, np.int64)


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return xxh3-64 of each id's UTF-8 bytes."""
    return np.fromiter((xxhash.xxh3_64_intdigest(i.encode()) for i in ids), np.uint64, len(ids))


def build_id_table(hashes: NDArray[np.uint64], entries: NDArray[np.uint64]) -> IdTable:
    order = np.argsort(hashes, kind="stable")
    return np.stack([hashes[order], entries[order]])


def hash_column(ids: pa.Array) -> NDArray[np.uint64]:
    """Return the hash of each id of a column without nulls, (n,).

    They are read block by block, because a Python object for each row of a large segment would take more
    memory than the column.
    """
    return _by_blocks(ids, hash_ids)


def table_of_column(ids: pa.Array) -> IdTable:
    """Build the table of each row's id; rows without one are left out."""
    return _build_present(ids, hash_ids)


def table_of_digests(digests: pa.Array) -> IdTable:
    """Build the table of each row's digest; rows without one are left out."""
    return _build_present(digests, hash_digests)


def hash_digests(digests: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return the first eight bytes of each digest, which is a hash already."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), "<u8").astype(np.uint64)


def _build_present(values: pa.Array, hash_block: _HashBlock) -> IdTable:
    rows = np.flatnonzero(np.asarray(values.is_valid())).astype(np.uint64)
    return build_id_table(_by_blocks(values.drop_null(), hash_block), rows)


def _by_blocks(values: pa.Array, hash_block: _HashBlock) -> NDArray[np.uint64]:
    blocks = [hash_block(values.slice(first, _BLOCK).to_pylist()) for first in range(0, len(values), _BLOCK)]
    return np.concatenate([np.empty(0, np.uint64), *blocks])


def open_id_table(part: MappedPart) -> IdTable:
    """Map the table. A look-up reads only the pages that it touches."""
    return map_array(part)


def find_entries(table: IdTable, hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Yield `(position in hashes, entry)` for every entry that has one of the hashes."""
    if table.shape[1] == 0:
        return
    first = np.searchsorted(table[0], hashes, side="left")
    last = np.searchsorted(table[0], hashes, side="right")
    for position in np.nonzero(last > first)[0].tolist():
        for index in range(int(first[position]), int(last[position])):
            yield position, int(table[1, index])


def have_common(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> bool:
    """Whether two sorted arrays of hashes, (n,) each, have one in common."""
    few, many = sorted((hashes, others), key=len)
    if not len(few):
        return False
    return bool((many.take(many.searchsorted(few), mode="clip") == few).any())


def entries_in_common(one: IdTable, other: IdTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the entries of both, (n,) each, that have the same hash: usually none.

    Each hash of the smaller table is looked up in the larger one.
    """
    if one.shape[1] > other.shape[1]:
        entries, others = entries_in_common(other, one)
        return others, entries
    if not one.shape[1]:
        return _NONE, _NONE
    hashes, others = one[0], other[0]
    first = others.searchsorted(hashes)
    found = (others.take(first, mode="clip") == hashes).nonzero()[0]
    if not len(found):
        return _NONE, _NONE
    num_equal = others.searchsorted(hashes[found], side="right") - first[found]
    starts = np.repeat(first[found] - np.cumsum(num_equal) + num_equal, num_equal)
    indices = starts + np.arange(len(starts))
    return one[1][np.repeat(found, num_equal)].astype(np.int64), other[1][indices].astype(np.int64)
