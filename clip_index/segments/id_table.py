"""Sorted 64-bit hashes of ids: bulk look-up without a Python object per row.

On disk a table is one `.npy` of shape (2, n), uint64: the hashes, ascending, and the entry of
each. Several entries may share a hash, so the caller compares the ids themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import MappedPart

IdTable: TypeAlias = NDArray[np.uint64]


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return xxh3-64 of each id's UTF-8 bytes."""
    return np.fromiter((xxhash.xxh3_64_intdigest(i.encode()) for i in ids), np.uint64, len(ids))


def build_id_table(hashes: NDArray[np.uint64], entries: NDArray[np.uint64]) -> IdTable:
    order = np.argsort(hashes, kind="stable")
    return np.stack([hashes[order], entries[order]])


def id_table_from(pairs: Iterable[tuple[int, str | None]]) -> IdTable:
    """Build the table of `(entry, id)` pairs; entries without an id are left out."""
    present = [(entry, id_) for entry, id_ in pairs if id_ is not None]
    hashes = hash_ids([id_ for _, id_ in present])
    return build_id_table(hashes, np.array([entry for entry, _ in present], np.uint64))


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
