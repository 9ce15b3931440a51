"""Dead rows: one roaring bitmap for each segment that has any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import TombstonesEntry, tombstones_name
from clip_index.storage.file_digest import digest_of
from clip_index.storage.shard_store import ShardStore


@dataclass(frozen=True, slots=True)
class DeadRows:
    """The dead rows of one segment; `oldest_dead_ms` (ms since 1970) is when the first of them died."""

    rows: BitMap
    oldest_dead_ms: int


def write_tombstones(
    store: ShardStore, dead: Mapping[str, DeadRows], *, generation: int
) -> dict[str, TombstonesEntry]:
    """Write durably which rows of each segment are dead as of a generation."""
    files: dict[str, bytes] = {}
    entries: dict[str, TombstonesEntry] = {}
    for segment_id, died in dead.items():
        # The number alone would not do: a failed commit of this generation may have left a file.
        file_name, data = f"{segment_id}-{generation}-{uuid4().hex[:8]}", died.rows.serialize()
        files[tombstones_name(file_name)] = data
        entries[segment_id] = TombstonesEntry(file_name, digest_of(data), len(died.rows), died.oldest_dead_ms)
    if files:
        store.put(files)
    return entries


def read_tombstones(store: ShardStore, file_name: str) -> BitMap:
    name = tombstones_name(file_name)
    try:
        return BitMap.deserialize(store.read(name))
    except ValueError as error:
        raise DamagedFile(store.address_of(name), f"not a bitmap ({error})") from error


def live_rows_mask(dead: BitMap, num_rows: int) -> NDArray[np.bool_]:
    """Return a (rows,) mask, False where the row is dead."""
    mask = np.ones(num_rows, np.bool_)
    mask[row_numbers(dead)] = False
    return mask


def row_numbers(rows: BitMap) -> NDArray[np.int64]:
    """Return the rows as numbers, (n,), ascending."""
    return np.array(rows.to_array(), np.int64)


def union_tombstones(committed: Mapping[str, BitMap], pending: Mapping[str, BitMap]) -> dict[str, BitMap]:
    """Return committed and pending dead rows together, segment by segment; unchanged ones are shared."""
    return {**committed, **{i: committed.get(i, BitMap()) | rows for i, rows in pending.items()}}
