"""A reader of a shared file system names what it has open, and garbage collection keeps it."""

from __future__ import annotations

import gc
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from clip_index.generations.manifest import GenerationKey
from clip_index.generations.reader_leases import LEASE_SECONDS, MAX_HELD_SECONDS
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading import held_generations, located_files
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.file_systems import is_shared
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.shards import add, content, create_index, path_of, removal, take_over

SHARD = "content-uploads-0"


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    """A writer that keeps only what it must: the last three generations."""
    return take_over(index, settings=WriterSettings(retain_for_seconds=0.0, collect_every_seconds=0.0))


def replace_content(writer: ShardWriter, times: int = 1) -> None:
    """Commit generations of which each replaces the content, so that former segments become garbage."""
    for _ in range(times):
        add(writer, [lambda o: removal("a", o), lambda o: content("a", o)])
        writer.commit()
        writer.maintain()


def open_reader(index: IndexDirectory, *, holds_files: bool = True) -> IndexReader:
    reader = IndexReader(
        index.path.parent.parent, clock=itertools.count(0.0, 60.0).__next__, holds_files=holds_files
    )
    reader.reload()
    return reader


def lacks_files(reader: IndexReader) -> bool:
    return not all(path.exists() for path in reader.served_files())


def lease_of(writer: ShardWriter) -> Path:
    [lease] = (path_of(writer) / "readers").iterdir()
    return lease


def test_a_generation_that_a_reader_holds_is_kept_and_that_of_another_reader_is_not(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    replace_content(writer)
    other = open_reader(index, holds_files=False)
    replace_content(writer)
    reader = open_reader(index)
    replace_content(writer, 6)
    assert lacks_files(other)
    assert not lacks_files(reader)


def test_what_a_reader_has_left_is_collected(index: IndexDirectory, writer: ShardWriter) -> None:
    replace_content(writer)
    reader = open_reader(index)
    former = reader.served_files()
    replace_content(writer)
    reader.reload()
    gc.collect()
    reader.reload()
    replace_content(writer, 6)
    assert not all(path.exists() for path in former)


def test_a_searcher_that_a_request_or_a_page_still_uses_is_held_beside_the_newest(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    replace_content(writer)
    reader = open_reader(index)
    former, files = reader.searcher, reader.served_files()
    replace_content(writer)
    reader.reload()
    reader.reload()
    assert former is not None
    held = {former.shards[SHARD].generation, writer.manifest.generation}
    assert set(json.loads(lease_of(writer).read_text())["generations"]) == held
    replace_content(writer, 6)
    assert all(path.exists() for path in files)


def test_a_former_generation_that_is_opened_again_is_held(index: IndexDirectory, writer: ShardWriter) -> None:
    replace_content(writer)
    key = GenerationKey(writer.manifest.generation, writer.manifest.key.digest)
    replace_content(writer)
    reader = open_reader(index)
    former = reader.open_former({SHARD: key})
    reader.reload()
    assert former.shards[SHARD].generation in json.loads(lease_of(writer).read_text())["generations"]


def test_a_former_generation_is_held_before_a_file_of_it_is_opened(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be about to be collected, and the next renewal is half a minute away."""
    replace_content(writer)
    key = GenerationKey(writer.manifest.generation, writer.manifest.key.digest)
    replace_content(writer)
    reader = open_reader(index)
    held = held_when_verified(writer, monkeypatch)
    reader.open_former({SHARD: key})
    assert held
    assert all(key.number in generations for generations in held)


def test_a_generation_is_held_while_its_files_are_verified(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To verify a large index takes longer than its files are kept after they were replaced."""
    for content_id in "abc":
        add(writer, [lambda o, content_id=content_id: content(content_id, o)])
        writer.commit()
    held = held_when_verified(writer, monkeypatch)
    open_reader(index)
    assert held == [{writer.manifest.generation}] * 3


def test_an_ordinary_reload_writes_no_lease_of_its_own(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_content(writer)
    reader = IndexReader(index.path.parent.parent, clock=lambda: 100.0, holds_files=True)
    reader.reload()
    written = []
    monkeypatch.setattr(held_generations, "write_lease", lambda *arguments: written.append(arguments))
    replace_content(writer)
    assert reader.reload()
    assert written == []


def held_when_verified(writer: ShardWriter, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Note at each file that is verified what the lease names."""
    held: list[set[int]] = []
    verified_file = located_files.verified_file

    def note(*arguments: Any) -> Path:
        held.append(set(json.loads(lease_of(writer).read_text())["generations"]))
        return verified_file(*arguments)

    monkeypatch.setattr(located_files, "verified_file", note)
    return held


def test_a_lease_that_was_not_renewed_holds_nothing_and_is_removed(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    replace_content(writer)
    reader = open_reader(index)
    lease = lease_of(writer)
    os.utime(lease, (0, time.time() - LEASE_SECONDS - 1))
    replace_content(writer, 6)
    assert lacks_files(reader)
    assert not lease.exists()


def test_no_reader_holds_a_generation_for_longer_than_hours(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    replace_content(writer)
    reader = open_reader(index)
    replace_content(writer, 2)
    for manifest in path_of(writer).glob("manifest-*.json"):
        os.utime(manifest, (0, time.time() - MAX_HELD_SECONDS - 1))
    replace_content(writer, 4)
    assert lacks_files(reader)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"generations": 3}', b'{"generations": ["3", null, true]}', b"[" * 100_000],
    ids=["empty", "half", "a list", "a number", "no numbers", "deep"],
)
def test_a_lease_that_nobody_understands_holds_nothing_and_stops_nothing(
    index: IndexDirectory, writer: ShardWriter, damage: bytes
) -> None:
    replace_content(writer)
    reader = open_reader(index)
    lease_of(writer).write_bytes(damage)
    replace_content(writer, 6)
    assert lacks_files(reader)


def test_a_reader_of_a_root_that_takes_no_writes_serves_on_and_says_why_it_holds_nothing(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    replace_content(writer)
    (path_of(writer) / "readers").write_text("")  # root writes everywhere, so rights would not stop it
    reader = open_reader(index)
    assert reader.searcher is not None
    assert "readers" in (reader.lease_failure or "")
    replace_content(writer)
    (path_of(writer) / "readers").unlink()
    reader.reload()
    assert reader.lease_failure is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nfs4", True),
        ("ceph", True),
        ("fuse.glusterfs", True),
        ("cifs", True),
        ("ext4", False),
        ("xfs", False),
    ],
)
def test_a_directory_is_shared_by_the_kind_of_its_mount(tmp_path: Path, kind: str, expected: bool) -> None:
    number = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:1 / / rw,relatime shared:1 - nfs4 /dev/vda1 rw\n"
        f"36 35 {os.major(number)}:{os.minor(number)} / /mnt rw,noatime master:1 - {kind} server:/index rw\n"
    )
    assert is_shared(tmp_path / "not" / "there yet", mounts) is expected
    assert is_shared(tmp_path, tmp_path / "no mountinfo") is False
