"""Dead rows lie in the manifest as long as they are few, and in a file and the manifest together later."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import TombstonesEntry, TombstonesFile
from clip_index.generations.tombstones import (
    due_for_files,
    read_tombstones,
    with_died,
    write_tombstones,
)
from clip_index.storage.file_digest import digest_of
from clip_index.storage.local_store import LocalShardStore


@pytest.fixture
def store(tmp_path: Path) -> LocalShardStore:
    store = LocalShardStore(tmp_path / "shard")
    store.prepare(["tombstones"])
    return store


def entry(num_bytes: int) -> TombstonesEntry:
    return TombstonesEntry(1, 0, bytes(num_bytes))


def test_the_largest_bitmaps_go_to_files_until_the_rest_is_small() -> None:
    entries = {"a": entry(30), "b": entry(50), "c": entry(20), "d": entry(40)}
    assert due_for_files(entries, 1000) == []
    assert due_for_files(entries, 140) == []
    assert due_for_files(entries, 139) == ["b"]
    assert due_for_files(entries, 60) == ["b", "d"]
    assert due_for_files(entries, 0) == ["b", "d", "a", "c"]


@given(sizes=st.lists(st.integers(0, 5000), max_size=20), max_bytes=st.integers(0, 10_000))
def test_what_stays_in_a_manifest_is_never_above_its_bound(sizes: list[int], max_bytes: int) -> None:
    entries = {str(number): entry(size) for number, size in enumerate(sizes)}
    due = due_for_files(entries, max_bytes)
    assert sum(len(e.bitmap) for i, e in entries.items() if i not in due) <= max_bytes


def test_rows_that_die_later_join_those_of_the_file(store: LocalShardStore) -> None:
    [file] = write_tombstones(store, {"1-a": BitMap([1, 2])}, generation=7).values()
    known = TombstonesEntry(2, 1000, b"", file)
    after = with_died(with_died(known, BitMap([5]), 1000), BitMap([3, 4]), 1000)
    assert (after.num_dead, after.oldest_dead_ms, after.file) == (5, 1000, file)
    assert read_tombstones(store, after) == BitMap([1, 2, 3, 4, 5])


def test_the_first_dead_rows_of_a_segment_need_no_file(store: LocalShardStore) -> None:
    dead = with_died(None, BitMap([3, 70_000]), 1000)
    assert (dead.num_dead, dead.oldest_dead_ms, dead.file) == (2, 1000, None)
    assert read_tombstones(store, dead) == BitMap([3, 70_000])


@pytest.mark.parametrize(
    "data", [b"", b"junk", BitMap([1]).serialize()], ids=["empty", "no bitmap", "fewer rows"]
)
def test_a_file_whose_dead_rows_are_not_those_that_are_counted_is_named(
    store: LocalShardStore, data: bytes
) -> None:
    store.put({"tombstones/x": data})
    with pytest.raises(DamagedFile, match="tombstones/x"):
        read_tombstones(store, TombstonesEntry(2, 0, b"", TombstonesFile("x", digest_of(data))))
