"""Dead rows: one roaring bitmap for each segment that has any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import TombstonesEntry
from clip_index.storage.durable_files import write_file
from clip_index.storage.file_digest import read_digest


def write_tombstones(
    directory: Path, segment_id: str, *, generation: int, dead: BitMap, oldest_dead_ms: int
) -> TombstonesEntry:
    """Write and fsync the dead rows of a segment as of a generation."""
    # A commit of this generation that failed, or another writer's, may have left its own file.
    path = directory / f"{segment_id}-{generation}-{uuid4().hex[:8]}"
    write_file(path, dead.serialize())
    return TombstonesEntry(path.name, read_digest(path), len(dead), oldest_dead_ms)


def read_tombstones(path: Path) -> BitMap:
    try:
        return BitMap.deserialize(path.read_bytes())
    except ValueError as error:
        raise DamagedFile(path, f"not a bitmap ({error})") from error


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
