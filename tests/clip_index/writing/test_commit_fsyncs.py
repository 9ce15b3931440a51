"""How often a commit waits for the device, and for what, in which order."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pyroaring import BitMap

from clip_index.content import Change
from clip_index.generations.tombstones import read_tombstones
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.format_1 import rewrite_as_format_1
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, path_of, removal, take_over

PACK = ["segments/.tmp-PACK", "segments"]
MANIFEST = [".tmp-MANIFEST", "."]
TOMBSTONES = ["tombstones/FILE", "tombstones"]


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path / "root")


@pytest.fixture
def synced(index: IndexDirectory, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been fsynced below the shard since the list was emptied, by the kind of its name."""
    fsync, found = os.fsync, list[str]()

    def record(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        found.append(_kind(os.path.relpath(path, index.shard_path(0))))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return found


def _kind(name: str) -> str:
    if name.endswith(".pack"):
        return "segments/.tmp-PACK"
    if "manifest-" in name:
        return ".tmp-MANIFEST"
    return "tombstones/FILE" if name.startswith("tombstones/") else name


def fill(writer: ShardWriter, prefix: str = "") -> None:
    add(writer, [lambda o, i=i: content(f"{prefix}{i}", o, owner_id="ann") for i in range(200)])
    writer.commit()


def texts(prefix: str) -> Sequence[Callable[[int], Change]]:
    return [
        lambda o, i=i: content(f"{prefix}-{i}", o, modality="text", num_rows=3, text="t", thumbnail=b"webp")
        for i in range(5)
    ]


COMMITS: dict[str, Sequence[Callable[[int], Change]]] = {
    "pictures": [lambda o: content("new", o)],
    "texts and pictures, with all that a segment may have": [
        *texts("new"),
        lambda o: content("picture", o, owner_id="ann", thumbnail=b"webp"),
        lambda o: removal("nobody", o, version=1),
    ],
    "contents that replace others": [lambda o, i=i: content(f"{i}", o) for i in range(20)],
    "uploads and deletes": [
        lambda o: content("new", o),
        *(lambda o, i=i: removal(f"{i}", o) for i in range(20)),
    ],
}


@pytest.mark.parametrize("changes", COMMITS.values(), ids=COMMITS)
def test_a_commit_waits_four_times_and_the_pack_is_durable_before_its_manifest(
    index: IndexDirectory, synced: list[str], changes: Sequence[Callable[[int], Change]]
) -> None:
    writer = take_over(index)
    fill(writer)
    fill(writer, "more-")
    synced.clear()
    add(writer, changes)
    writer.commit()
    assert synced == [*PACK, *MANIFEST]


def test_a_commit_that_adds_no_content_waits_for_its_manifest_alone(
    index: IndexDirectory, synced: list[str]
) -> None:
    writer = take_over(index)
    fill(writer)
    for changes in ([removal("nobody", 200)], [removal("1", 201), removal("2", 202)]):
        synced.clear()
        add(writer, changes)
        writer.commit()
        assert synced == MANIFEST


def test_a_manifest_that_is_full_of_dead_rows_sends_the_largest_bitmap_to_a_file(
    index: IndexDirectory, synced: list[str]
) -> None:
    """The rows that die later are in the manifest again, beside the file."""
    writer = take_over(index, settings=WriterSettings(max_bitmap_bytes=100))
    fill(writer)
    kinds = []
    for number in range(60):
        synced.clear()
        add(writer, [lambda o, i=number: removal(f"{i}", o)])
        writer.commit()
        assert synced in (MANIFEST, [*TOMBSTONES, *MANIFEST])
        kinds.append(len(synced))
    assert kinds.count(2) > 50, "a file holds many deaths"
    [dead] = writer.manifest.tombstones.values()
    assert dead.file is not None
    assert dead.bitmap
    assert dead.num_dead == 60
    assert read_tombstones(writer.store, dead) == BitMap(range(60))


def test_a_merge_s_commit_waits_for_its_pack_and_its_manifest(
    index: IndexDirectory, synced: list[str]
) -> None:
    lanes = InlineLanes()
    writer = take_over(index, lanes=lanes, settings=WriterSettings(merge=MergeSettings(merge_factor=2)))
    fill(writer)
    fill(writer, "more-")
    synced.clear()
    writer.maintain()
    lanes.release(is_released=True)
    writer.maintain()
    assert len(writer.manifest.segments) == 1
    assert synced == [*PACK, *MANIFEST]


def test_a_shard_of_format_1_is_continued_with_four_waits(index: IndexDirectory, synced: list[str]) -> None:
    writer = take_over(index)
    fill(writer)
    add(writer, [lambda o: removal("1", o)])
    writer.commit()
    rewrite_as_format_1(path_of(writer))
    writer = take_over(index)
    assert writer.manifest.segments[0].pack is None
    synced.clear()
    add(writer, [lambda o: removal("2", o), lambda o: content("new", o)])
    writer.commit()
    assert synced == [*PACK, *MANIFEST]
    [dead] = writer.manifest.tombstones.values()
    assert dead.file is not None
    assert read_tombstones(writer.store, dead) == BitMap([1, 2])
