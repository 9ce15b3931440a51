"""The file that tells readers of a shard's sampled records."""

from __future__ import annotations

from pathlib import Path

from clip_index.generations.traces import FILE_NAME, MAX_TRACES, TracedRecord, read_traces, write_traces
from clip_index.storage.local_store import LocalShardStore

TRACED = [
    TracedRecord(offset, f"00-{offset:032x}-{offset:016x}-01", 1_700_000_000_000) for offset in range(600)
]


def test_the_latest_traces_come_back_in_their_order(tmp_path: Path) -> None:
    store = LocalShardStore(tmp_path)
    assert read_traces(store) == []
    write_traces(store, TRACED)
    assert read_traces(store) == TRACED[-MAX_TRACES:]


def test_a_damaged_file_of_traces_is_as_none(tmp_path: Path) -> None:
    store = LocalShardStore(tmp_path)
    write_traces(store, TRACED[:2])
    file = tmp_path / FILE_NAME
    whole = file.read_bytes()
    for damaged in (b"", b"{}", whole[:-9], whole.replace(b"01", b"02", 1)):
        store.replace(FILE_NAME, damaged)
        assert read_traces(store) == []
