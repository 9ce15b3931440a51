"""A reader of an index in a bucket: what it fetches, what it asks for, and what it does without a disk."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from clip_index.errors import DamagedFile
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.buckets import file_cache
from clip_index.storage.buckets.file_cache import FileCache
from clip_index.storage.buckets.object_bucket import ObjectBucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.storage.shard_store import StoreTrouble, StoreUnreachable
from clip_index.writing.shard_writer import ShardWriter
from fakes.faulty_bucket import Fault, FaultyBucket
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, create_index, take_over, unit_vectors

NEVER = 10**9


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bucket() -> ObjectBucket:
    return memory_bucket()


@pytest.fixture
def writer(bucket: ObjectBucket, tmp_path: Path) -> ShardWriter:
    return take_over(create_index(object_store(bucket, "", tmp_path / "writer")))


def commit(writer: ShardWriter, *ids: str) -> None:
    first = writer.next_offset
    add(writer, [content(content_id, first + i) for i, content_id in enumerate(ids)])
    writer.commit()


def ids_of(reader: IndexReader) -> list[str]:
    assert reader.searcher is not None
    hits = reader.searcher.search(unit_vectors(1), k=100, modality="image")[0]
    return sorted(hit.content_id for hit in hits)


def reader_of(bucket: ObjectBucket, tmp_path: Path, clock: Clock | None = None) -> IndexReader:
    store = object_store(bucket, "", tmp_path / "reader")
    return IndexReader(store, clock=clock or time.monotonic)


def copies_of(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "reader" / "copies").rglob("*") if path.is_file()]


def test_a_reload_shows_what_another_machine_has_committed(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a", "b")
    reader = reader_of(bucket, tmp_path)
    assert reader.reload()
    assert ids_of(reader) == ["a", "b"]
    commit(writer, "c")
    assert reader.reload()
    assert ids_of(reader) == ["a", "b", "c"]
    assert not reader.reload()


def test_a_look_that_finds_nothing_new_is_one_request_a_shard(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    counted, clock = FaultyBucket(bucket, NEVER, Fault.NOT_DONE), Clock()
    reader = reader_of(counted, tmp_path, clock)
    reader.reload()
    reader.reload()
    num_requests = counted.num_requests
    for _ in range(10):
        clock.now += 0.2
        reader.reload()
    assert counted.num_requests == num_requests + 10


def test_a_watermark_is_followed_every_few_seconds(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    clock = Clock()
    reader = reader_of(bucket, tmp_path, clock)
    reader.reload()
    writer.renew_watermark(1_700_000_000_000)
    clock.now += 10
    reader.reload()
    assert reader.searcher is not None
    [snapshot] = reader.searcher.shards.values()
    assert snapshot.watermark_ms == 1_700_000_000_000


def test_a_damaged_copy_is_fetched_again_when_it_is_opened(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    reader_of(bucket, tmp_path).reload()
    [copy] = copies_of(tmp_path)
    damage(copy)
    reader = reader_of(bucket, tmp_path)
    reader.reload()
    assert ids_of(reader) == ["a"]


def test_a_damaged_copy_that_is_open_is_replaced_by_the_scrub(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    reader = reader_of(bucket, tmp_path)
    reader.reload()
    before = reader.searcher
    [copy] = copies_of(tmp_path)
    good = copy.read_bytes()
    damage(copy)
    assert reader.mend(copy)
    assert not reader.reload(), "no other generation is served"
    assert reader.searcher is not before
    assert copy.read_bytes() == good
    assert ids_of(reader) == ["a"]
    reopened = reader.searcher
    reader.reload()
    assert reader.searcher is reopened, "it is opened once"


def test_a_file_in_a_directory_cannot_be_fetched_again(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path))
    commit(writer, "a")
    reader = IndexReader(tmp_path)
    reader.reload()
    [path] = reader.served_files()
    assert not reader.mend(path)
    assert path.exists()


def test_a_damaged_object_is_named_and_the_old_view_serves_on(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    reader = reader_of(bucket, tmp_path)
    reader.reload()
    commit(writer, "b")
    newest = writer.manifest.segments[-1].stored_name
    key = f"indexes/main/content-uploads-0/{newest}"
    bucket.put(key, bytes(len(bucket.get(key))))
    with pytest.raises(DamagedFile, match=rf"memory://bucket/{key}"):
        reader.reload()
    assert ids_of(reader) == ["a"]


@pytest.mark.parametrize("fault", [Fault.WRONG_BYTES, Fault.NO_LISTING], ids=lambda fault: fault.name)
def test_no_single_wrong_answer_of_the_bucket_counts_as_damage_or_as_an_empty_index(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path, fault: Fault
) -> None:
    """An error's text in the place of bytes or of a listing, at each request of an opening."""
    commit(writer, "a")
    number, has_failed = 1, True
    while has_failed:
        faulty = FaultyBucket(bucket, number, fault)
        reader = IndexReader(object_store(faulty, "", tmp_path / f"reader {number}"))
        reader.reload()
        assert ids_of(reader) == ["a"]
        has_failed = faulty.has_failed
        number += 1
    assert number > 5


def test_a_full_cache_disk_keeps_the_old_view_and_says_so(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(writer, "a")
    reader = reader_of(bucket, tmp_path)
    reader.reload()
    commit(writer, "b")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file_cache, "_write_compared", full)
        with pytest.raises(StoreTrouble, match=r"the disk of the index's cache, .*, is full"):
            reader.reload()
    assert ids_of(reader) == ["a"]
    reader.reload()
    assert ids_of(reader) == ["a", "b"]


def test_a_store_that_is_away_keeps_the_old_view(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    away = FaultyBucket(bucket, NEVER, Fault.NOT_DONE)
    reader = reader_of(away, tmp_path)
    reader.reload()
    commit(writer, "b")
    away._number = away.num_requests + 1
    with pytest.raises(StoreUnreachable):
        reader.reload()
    assert ids_of(reader) == ["a"]
    reader.reload()
    assert ids_of(reader) == ["a", "b"]


def test_copies_of_what_is_served_stay_and_former_ones_go(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    now = time.time()
    cache = FileCache(tmp_path / "reader", 1, clock=lambda: now)
    reader = IndexReader(ObjectShardStore(bucket, cache))
    for content_id in "abc":
        commit(writer, content_id)
        reader.reload()
        now += 3600
    former = take_over(IndexDirectory.open(object_store(bucket, "", tmp_path / "other")))
    cache.sweep()
    assert len(copies_of(tmp_path)) == 3
    commit(former, "d")
    reader.reload()
    assert ids_of(reader) == ["a", "b", "c", "d"]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    path.chmod(0o444)


def test_copies_of_an_index_that_is_served_no_more_may_go(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    """A service has swapped to another index, and back to this one before the former reader was closed."""
    commit(writer, "a")
    store = object_store(bucket, "", tmp_path / "reader")
    former, latter = IndexReader(store), IndexReader(store)
    former.reload()
    latter.reload()
    [path] = (path for path in former.served_files() if path.suffix == ".pack")
    make_old(path)
    former.close()
    store.cache.sweep(max_bytes=0)
    assert path.exists()
    latter.close()
    store.cache.sweep(max_bytes=0)
    assert not path.exists()


def make_old(path: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def test_a_reload_that_ends_after_its_reader_was_closed_keeps_no_copies(
    bucket: ObjectBucket, writer: ShardWriter, tmp_path: Path
) -> None:
    commit(writer, "a")
    store = object_store(bucket, "", tmp_path / "reader")
    reader = IndexReader(store)
    reader.reload()
    commit(writer, "b")
    reader.close()
    reader.reload()
    paths = [path for path in reader.served_files() if path.suffix == ".pack"]
    for path in paths:
        make_old(path)
    store.cache.sweep(max_bytes=0)
    assert not any(path.exists() for path in paths)
