"""Dead rows: a roaring bitmap for each segment that has any, in the manifest or in a file.

Rows that have died lately are in the manifest itself, so an ordinary commit writes no other file for
them. When these bitmaps become large, the largest of them goes to a file, together with what its
segment's former file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import TombstonesEntry, TombstonesFile, tombstones_name
from clip_index.storage.file_digest import digest_of
from clip_index.storage.parsed_files import parse_file
from clip_index.storage.shard_store import ShardStore

MAX_BYTES_IN_MANIFEST = 4096
"""All bitmaps of a manifest together. Each commit writes them again."""


def with_died(known: TombstonesEntry | None, died: BitMap, oldest_dead_ms: int) -> TombstonesEntry:
    """Return a segment's entry after more of its rows have `died`: the manifest holds them.

    `oldest_dead_ms` (ms since 1970) is when the first of its dead rows died.
    """
    if known is None:
        return TombstonesEntry(len(died), oldest_dead_ms, died.serialize())
    recent = _bitmap(known.bitmap) | died
    return TombstonesEntry(known.num_dead + len(died), oldest_dead_ms, recent.serialize(), known.file)


def due_for_files(entries: Mapping[str, TombstonesEntry], max_bytes: int) -> list[str]:
    """Return the segments whose dead rows must go to files, so that a manifest holds few bytes of them.

    They are those with the largest bitmaps: the fewest files make the most room.
    """
    num_bytes = sum(len(entry.bitmap) for entry in entries.values())
    due = []
    for segment_id, entry in sorted(entries.items(), key=lambda pair: -len(pair[1].bitmap)):
        if num_bytes <= max_bytes:
            break
        due.append(segment_id)
        num_bytes -= len(entry.bitmap)
    return due


def write_tombstones(
    store: ShardStore, dead: Mapping[str, BitMap], *, generation: int
) -> dict[str, TombstonesFile]:
    """Write the dead rows of some segments durably, a file for each, as of a generation."""
    files: dict[str, bytes] = {}
    written: dict[str, TombstonesFile] = {}
    for segment_id, rows in dead.items():
        # The number alone would not do: a failed commit of this generation may have left a file.
        file_name, data = f"{segment_id}-{generation}-{uuid4().hex[:8]}", rows.serialize()
        files[tombstones_name(file_name)] = data
        written[segment_id] = TombstonesFile(file_name, digest_of(data))
    if files:
        store.put(files)
    return written


def read_tombstones(store: ShardStore, entry: TombstonesEntry) -> BitMap:
    """Return the dead rows of a segment; `DamagedFile` if its file has not those that the entry counts."""
    recent = _bitmap(entry.bitmap)
    if entry.file is None:
        return recent
    name, digest = tombstones_name(entry.file.file_name), entry.file.digest

    def checked(data: bytes) -> bytes:
        if digest_of(data) != digest:  # what was verified may have been another copy
            raise DamagedFile(store.address_of(name), "its bytes do not match the manifest's digest")
        return data

    data = parse_file(store, name, checked)
    try:
        dead = BitMap.deserialize(data) | recent
    except (ValueError, IndexError) as error:
        raise DamagedFile(store.address_of(name), f"not a bitmap ({error})") from error
    if len(dead) != entry.num_dead:
        raise DamagedFile(store.address_of(name), f"{len(dead)} dead rows, expected {entry.num_dead}")
    return dead


def _bitmap(data: bytes) -> BitMap:
    return BitMap.deserialize(data) if data else BitMap()


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
