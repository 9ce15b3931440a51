"""What a reader promises while writers commit, merge, collect and damage strikes."""

from __future__ import annotations

import errno
import fnmatch
import os
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from clip_index.content import Modality
from clip_index.errors import DamagedFile, EncoderMismatch, IndexMissing, IndexRefused
from clip_index.generations.history import manifest_name
from clip_index.generations.inspection import Inspection
from clip_index.generations.manifest import SegmentEntry
from clip_index.generations.restoration import commit_restoration, plan_refill, plan_repair
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading import shard_reader
from clip_index.reading.index_reader import IndexReader
from clip_index.searching import searcher
from clip_index.searching.sources import Sources
from clip_index.segments.segment import Segment
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.shard_store import ShardStore
from clip_index.vectors.centroid_set import CentroidSets
from clip_index.views.snapshot import ShardView
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.format_1 import rewrite_as_format_1
from fakes.shards import (
    add,
    content,
    create_index,
    description,
    fingerprint,
    pack_path,
    path_of,
    removal,
    root_of,
    take_over,
    unit_vectors,
)
from fakes.stored_damage import cut_short, flip_a_bit, newest_pack, rewrite, root_store
from tests.fixtures.roots import on_a_directory


@pytest.fixture
def index(root: IndexRoot) -> IndexDirectory:
    return create_index(root)


A_MINUTE = 60.0  # between two looks, longer than any reader waits


@pytest.fixture
def reader(index: IndexDirectory) -> IndexReader:
    return IndexReader(root_of(index), clock=count(0, A_MINUTE).__next__)


def found_ids(reader: IndexReader) -> list[str]:
    assert reader.searcher is not None
    hits = reader.searcher.search(unit_vectors(1), k=100, modality="image")[0]
    return sorted(hit.content_id for hit in hits)


def test_an_index_that_is_not_there_yet_is_missing(root: IndexRoot) -> None:
    with pytest.raises(IndexMissing, match="no index in"):
        IndexReader(root).reload()


def test_a_shard_without_a_generation_is_shown_as_empty(reader: IndexReader) -> None:
    assert reader.reload() is False
    assert reader.searcher is not None
    snapshot = reader.searcher.shards["content-uploads-0"]
    assert (snapshot.generation, snapshot.next_offset, snapshot.watermark_ms) == (0, 0, None)


def test_reload_follows_generations_and_keeps_the_former_searcher_valid(
    index: IndexDirectory, reader: IndexReader
) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    assert reader.reload() is True
    former = reader.searcher
    add(writer, [lambda o: content("b", o), lambda o: removal("a", o)])
    writer.commit()
    assert reader.reload() is True
    assert reader.reload() is False
    assert found_ids(reader) == ["b"]
    assert former is not None
    [hits] = former.search(unit_vectors(1), k=10, modality="image")
    assert [hit.content_id for hit in hits] == ["a"]


def test_a_commit_is_news_until_it_is_served(index: IndexDirectory, reader: IndexReader) -> None:
    assert reader.may_have_news() is False  # nothing was looked at
    reader.reload()
    writer = take_over(index)
    for _ in range(2):
        assert reader.may_have_news() is True
        reader.reload()
        assert reader.may_have_news() is False
        add(writer, [lambda o: content("a", o)])
        writer.commit()


def test_unchanged_segments_are_shared_between_searchers(index: IndexDirectory, reader: IndexReader) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reader.reload()
    first = reader.searcher.find("a")
    add(writer, [lambda o: content("b", o)])
    writer.commit()
    reader.reload()
    second = reader.searcher.find("a")
    assert first is not None
    assert second is not None
    assert first.view is second.view


def test_a_damaged_new_file_is_named_and_the_old_snapshot_serves_on(
    index: IndexDirectory, reader: IndexReader
) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reader.reload()
    add(writer, [lambda o: content("b", o)])
    writer.commit()
    flip_a_bit(writer.store, newest_pack(writer))
    for _ in range(2):
        with pytest.raises(DamagedFile, match=newest_pack(writer)):
            reader.reload()
        assert found_ids(reader) == ["a"]


def lead_nowhere(store: ShardStore, name: str) -> None:
    """Put a link in place of a file."""
    path = store.local_file(name)
    path.unlink()
    path.symlink_to(path.name)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Files that are there and cannot be opened, as with a failing disk or without the right to."""
    paths, open_file = set[Path](), os.open

    def fail_to_open(path: Path | str, *arguments: int, **options: int) -> int:
        if Path(path) in paths:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail_to_open)
    return paths


@pytest.mark.parametrize(
    ("strike", "error"),
    [(flip_a_bit, DamagedFile), (lead_nowhere, DamagedFile), (None, OSError)],
    ids=["damaged", "a link", "not to be opened"],
)
def test_a_shard_that_cannot_be_read_does_not_hold_the_others_back(
    tmp_path: Path,
    unreadable: set[Path],
    strike: Callable[[ShardStore, str], None] | None,
    error: type[Exception],
) -> None:
    index = create_index(tmp_path, num_partitions=2)
    reader = IndexReader(tmp_path)
    writers = [take_over(index, partition) for partition in range(2)]
    for i, writer in enumerate(writers):
        add(writer, [lambda o, i=i: content(f"old-{i}", o)])
        writer.commit()
    reader.reload()
    for i, writer in enumerate(writers):
        add(writer, [lambda o, i=i: content(f"new-{i}", o)])
        writer.commit()
    if strike is None:
        unreadable.add(pack_path(writers[0]))
    else:
        strike(writers[0].store, newest_pack(writers[0]))
    with pytest.raises(error):
        reader.reload()
    assert found_ids(reader) == ["new-1", "old-0", "old-1"]


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, dump_digested({"format": []}), dump_digested({"format": [1, 0], "segments": 7})],
    ids=["nested beyond measure", "no format", "other types"],
)
def test_a_manifest_of_anything_else_is_damaged(
    index: IndexDirectory, reader: IndexReader, text: bytes
) -> None:
    writer = take_over(index)
    rewrite(writer.store, manifest_name(writer.generation + 1), text)
    with pytest.raises(DamagedFile, match="manifest"):
        reader.reload()


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 100_000, dump_digested({"watermark_ms": "x", "next_offset": None, "writer_epoch": 1})],
    ids=["empty", "nested beyond measure", "other types"],
)
def test_a_watermark_of_anything_else_is_none(
    index: IndexDirectory, reader: IndexReader, text: bytes
) -> None:
    writer = watermarked(index)
    rewrite(writer.store, "watermark.json", text)
    shows_contents_without_a_watermark(reader)


@on_a_directory
def test_a_watermark_that_cannot_be_opened_is_none(
    index: IndexDirectory, reader: IndexReader, unreadable: set[Path]
) -> None:
    unreadable.add(path_of(watermarked(index)) / "watermark.json")
    shows_contents_without_a_watermark(reader)


def watermarked(index: IndexDirectory) -> ShardWriter:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    writer.renew_watermark(1_700_000_000_000)
    return writer


def shows_contents_without_a_watermark(reader: IndexReader) -> None:
    reader.reload()
    assert found_ids(reader) == ["a"]
    assert reader.searcher is not None
    assert reader.searcher.shards["content-uploads-0"].watermark_ms is None


@pytest.mark.parametrize(
    "pattern",
    [
        "segments/*.pack",
        "tombstones/*",
        "manifest-*4.json",
    ],
)
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_damaged_old_file_is_refused_at_start(
    index: IndexDirectory, pattern: str, damage: Callable[[ShardStore, str], None]
) -> None:
    writer = fill_with_all_kinds(index)
    folder = pattern.rpartition("/")[0]
    names = [f"{folder}/{name}".lstrip("/") for name in writer.store.list_names(folder)]
    damage_is_named(index, writer, sorted(fnmatch.filter(names, pattern))[-1], damage)


@on_a_directory
@pytest.mark.parametrize(
    "pattern",
    [
        "segments/*/image.faiss",
        "segments/*/image.nodes.npy",
        "segments/*/contents.arrow",
        "segments/*/deletes.arrow",
        "segments/*/ids.npy",
        "segments/*/owners.npy",
        "tombstones/*",
    ],
)
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_damaged_file_of_format_1_is_refused_at_start(
    index: IndexDirectory, pattern: str, damage: Callable[[ShardStore, str], None]
) -> None:
    """No release has written format 1 into a bucket."""
    writer = fill_with_all_kinds(index)
    rewrite_as_format_1(path_of(writer))
    damaged = sorted(path_of(writer).glob(pattern))[-1]
    damage_is_named(index, writer, str(damaged.relative_to(path_of(writer))), damage)


def fill_with_all_kinds(index: IndexDirectory) -> ShardWriter:
    """Commit rows, owners, remembered deletes, and a file of tombstones."""
    writer = take_over(index, settings=WriterSettings(max_bitmap_bytes=0))
    add(writer, [lambda o: content("a", o, owner_id="ann"), lambda o: content("b", o)])
    writer.commit()
    add(writer, [lambda o: removal("x", o, version=1), lambda o: content("c", o)])
    writer.commit()
    add(writer, [lambda o: removal("b", o)])
    writer.commit()
    return writer


def damage_is_named(
    index: IndexDirectory, writer: ShardWriter, name: str, damage: Callable[[ShardStore, str], None]
) -> None:
    damage(writer.store, name)
    reader = IndexReader(root_of(index))
    with pytest.raises(DamagedFile) as caught:
        reader.reload()
    assert caught.value.file == writer.store.address_of(name)
    assert reader.searcher is None


def test_a_missing_file_is_named(index: IndexDirectory) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    writer.store.remove(newest_pack(writer))
    with pytest.raises(DamagedFile, match="missing"):
        IndexReader(root_of(index)).reload()


def test_a_file_collected_between_its_check_and_its_opening_is_no_damage(
    index: IndexDirectory, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    collected = newest_pack(writer)

    def open_late(store: ShardStore, entry: SegmentEntry, sets: CentroidSets) -> Segment:
        if writer.store.exists(collected):
            add(writer, [lambda o: removal("a", o), lambda o: content("b", o)])
            writer.commit()
            writer.store.remove(collected)
        return Segment(store, entry, sets)

    monkeypatch.setattr(shard_reader, "Segment", open_late)
    assert reader.reload() is True
    assert found_ids(reader) == ["b"]


def add_fields(store: ShardStore, name: str, **fields: object) -> None:
    """Rewrite a document as a later version of the same format would have written it."""
    known = parse_digested(store.read(name), name)
    for field, value in fields.items():
        known[field] = {**known[field], **value} if isinstance(value, dict) else value
    rewrite(store, name, dump_digested(known))


def test_fields_that_a_later_version_has_added_are_ignored(
    index: IndexDirectory, reader: IndexReader
) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    writer.renew_watermark(1_700_000_000_000)
    add_fields(index.store, "index.json", since="2.0", fingerprint={"quantisation": "none"})
    add_fields(writer.store, "watermark.json", host="consumer-7")
    add_fields(writer.store, manifest_name(writer.generation), hint=1)
    reader.reload()
    assert found_ids(reader) == ["a"]
    assert reader.searcher is not None
    assert reader.searcher.shards["content-uploads-0"].watermark_ms == 1_700_000_000_000
    assert create_index(root_of(index)).description == index.description


def test_a_reader_that_slept_past_collected_generations_catches_up(
    index: IndexDirectory, reader: IndexReader
) -> None:
    now = time.time()
    settings = WriterSettings(retain_for_seconds=0.0, collect_every_seconds=0.0)
    writer = take_over(index, settings=settings, clock=lambda: now + 3600)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reader.reload()
    for i in range(6):
        add(writer, [lambda o, i=i: content(f"{i}", o)])
        writer.commit()
        writer.maintain()
    assert reader.reload() is True
    assert len(found_ids(reader)) == 7


def test_a_second_encoder_of_the_same_dimension_is_refused_naming_both(index: IndexDirectory) -> None:
    other = fingerprint(architecture="other-encoder", weights_digest="ff")
    with pytest.raises(EncoderMismatch, match=r"test-encoder \(16 dim.*other-encoder \(16 dim"):
        IndexReader(root_of(index), fingerprint=other).reload()
    with pytest.raises(EncoderMismatch, match=r"test-encoder \(16 dim.*other-encoder \(16 dim"):
        create_index(root_of(index), fingerprint=other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"num_partitions": 2}, r"num_partitions 1 \(now 2\)", id="partition count"),
        pytest.param({"topic_id": "topic-id-2"}, "topic_id 'topic-id-1'", id="recreated topic"),
        pytest.param({"group_id": "other"}, "group_id 'cliptide-main'", id="another group"),
    ],
)
def test_an_index_built_for_something_else_is_refused(
    index: IndexDirectory, change: dict[str, object], message: str
) -> None:
    with pytest.raises(IndexRefused, match=message):
        create_index(root_of(index), **change)


@pytest.mark.parametrize("fields", [{}, {"index_id": None}, {"index_id": "../elsewhere"}], ids=str)
def test_a_pointer_to_no_index_is_damaged(index: IndexDirectory, fields: dict[str, Any]) -> None:
    root = root_of(index)
    rewrite(root_store(index), "current-2.json", dump_digested(fields))
    with pytest.raises(DamagedFile, match=r"current-2\.json: no index has the id"):
        IndexDirectory.open(root)
    assert IndexDirectory.open(root, index.index_id).index_id == index.index_id


@pytest.mark.parametrize("index_id", ["../up", "", ".hidden", "a/b", "x" * 65])
def test_an_index_id_is_a_plain_name(root: IndexRoot, index_id: str) -> None:
    with pytest.raises(IndexRefused, match="must match"):
        IndexDirectory.create(root, index_id, description())


def test_the_watermark_moves_without_a_generation(index: IndexDirectory, reader: IndexReader) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reader.reload()
    writer.renew_watermark(1_700_000_000_000)
    assert reader.reload() is False
    assert reader.searcher.shards["content-uploads-0"].watermark_ms == 1_700_000_000_000


def test_a_watermark_of_a_later_commit_is_not_claimed_for_an_earlier_generation(
    index: IndexDirectory, reader: IndexReader
) -> None:
    writer = take_over(index)
    reader.reload()
    former = reader.searcher
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    writer.renew_watermark(1_700_000_000_000)
    assert former.shards["content-uploads-0"].watermark_ms is None
    reader.reload()
    assert reader.searcher.shards["content-uploads-0"].watermark_ms == 1_700_000_000_000


def test_one_id_in_two_partitions_is_found_once_the_greater_version_wins(root: IndexRoot) -> None:
    index = create_index(root, num_partitions=2)
    for partition, version in ((0, 2), (1, 1)):
        writer = take_over(index, partition)
        add(writer, [lambda o, v=version: content("a", o, version=v, seed=v)])
        writer.commit()
    reader = IndexReader(root)
    reader.reload()
    [hits] = reader.searcher.search(unit_vectors(1), k=5, modality="image")
    assert [(hit.content_id, hit.location.shard) for hit in hits] == [("a", "content-uploads-0")]
    assert reader.searcher.find("a").shard == "content-uploads-0"


def test_newcomers_are_what_lies_beyond_the_former_searchers_offsets(
    index: IndexDirectory, reader: IndexReader
) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o, occurred_at_ms=100)])
    writer.commit()
    reader.reload()
    former = reader.searcher
    add(
        writer, [lambda o: content("b", o, occurred_at_ms=200), lambda o: content("a", o, occurred_at_ms=300)]
    )
    writer.commit()
    reader.reload()
    assert former is not None
    assert reader.searcher is not None
    assert reader.searcher.newcomers_since(former).tolist() == [200, 300]
    assert reader.searcher.newcomers_since(reader.searcher).tolist() == []


def test_a_reader_falls_back_to_the_newest_good_generation_and_names_the_damaged_one(
    index: IndexDirectory,
) -> None:
    writer = take_over(index)
    for content_id in "abcd":
        add(writer, [lambda o, content_id=content_id: content(content_id, o)])  # type: ignore[misc]
        writer.commit()
    for number in (2, 3):
        flip_a_bit(writer.store, newest_pack(writer, number))
    reader = IndexReader(root_of(index))
    with pytest.raises(DamagedFile):
        reader.reload()
    assert reader.fall_back()
    assert found_ids(reader) == ["a", "b"]
    assert reader.searcher is not None
    (snapshot,) = [one for one in reader.searcher.shards.values() if one.generation]
    assert snapshot.damaged_generation == writer.generation
    with pytest.raises(DamagedFile):
        reader.reload()
    assert found_ids(reader) == ["a", "b"]


def test_a_repair_ends_the_damage_that_a_reader_names(index: IndexDirectory) -> None:
    writer = take_over(index)
    for content_id in "ab":
        add(writer, [lambda o, content_id=content_id: content(content_id, o)])  # type: ignore[misc]
        writer.commit()
    flip_a_bit(writer.store, newest_pack(writer))
    reader = IndexReader(root_of(index))
    with pytest.raises(DamagedFile):
        reader.reload()
    assert reader.fall_back()
    store = index.shard_store(writer.partition)
    plan = plan_repair(Inspection(store))
    assert plan is not None
    commit_restoration(store, plan, writer_id="repair")
    assert reader.reload()
    assert reader.searcher is not None
    assert all(shard.damaged_generation is None for shard in reader.searcher.shards.values())


def test_a_reader_does_not_fall_back_to_an_empty_shard(index: IndexDirectory) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    flip_a_bit(writer.store, newest_pack(writer))
    reader = IndexReader(root_of(index))
    with pytest.raises(DamagedFile):
        reader.reload()
    assert not reader.fall_back()
    assert reader.searcher is None


@on_a_directory
def test_a_file_that_was_truncated_after_its_check_is_damaged_when_it_is_opened_again(
    index: IndexDirectory, reader: IndexReader
) -> None:
    writer = take_over(index)
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reader.reload()
    assert reader.searcher is not None
    former = {name: shard.key for name, shard in reader.searcher.shards.items()}
    path = pack_path(writer)
    store = index.shard_store(writer.partition)
    empty = plan_refill(Inspection(store))
    commit_restoration(store, empty, writer_id="repair")
    reader.reload()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(10)
    with pytest.raises(DamagedFile, match="10 bytes, expected"):
        reader.open_former(former)


def test_a_reload_prepares_the_searches_that_the_former_searcher_has_made_and_no_others(
    index: IndexDirectory, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []

    class NotedSources(Sources):
        def __init__(
            self, shards: Iterable[ShardView], modality: Modality, former: Sources | None = None
        ) -> None:
            prepared.append(modality)
            super().__init__(shards, modality, former)

    monkeypatch.setattr(searcher, "Sources", NotedSources)
    writer = take_over(index)

    def commit_and_reload(content_id: str) -> list[str]:
        prepared.clear()
        add(writer, [lambda o: content(content_id, o)])
        writer.commit()
        reader.reload()
        return list(prepared)

    assert commit_and_reload("a") == []
    assert reader.searcher is not None
    reader.searcher.search(unit_vectors(1), k=5, modality="image")
    assert commit_and_reload("b") == ["image"]
    assert reader.searcher.search(unit_vectors(1), k=5, modality="image")[0]
    assert prepared == ["image"]  # by the reload, and not by the search
    commit_and_reload("c")
    assert commit_and_reload("d") == []  # nobody has searched the former searcher
