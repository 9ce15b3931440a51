"""A shard needs no directory: its whole life on a store of objects."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from clip_index.content import Change
from clip_index.errors import DamagedFile, Fenced
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.inspection import Inspection
from clip_index.generations.restoration import commit_restoration, plan_rollback
from clip_index.generations.watermark import read_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.buckets.object_bucket import ObjectBucket
from clip_index.storage.index_roots import ObjectRoot
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_state import open_state
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.faulty_bucket import Fault, FaultyBucket
from fakes.inline_merges import InlineLanes
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, description, removal, take_over

IDS = ["a", "b", "c", "d"]


@pytest.fixture
def bucket() -> ObjectBucket:
    return memory_bucket()


@pytest.fixture
def index(bucket: ObjectBucket, tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(object_store(bucket, "indexes/main", tmp_path / "one"), "main", description())


@pytest.fixture
def elsewhere(bucket: ObjectBucket, tmp_path: Path) -> IndexDirectory:
    """The same index, opened on another machine."""
    return IndexDirectory(object_store(bucket, "indexes/main", tmp_path / "two"), "main", description())


def live_ids(index: IndexDirectory, writer: ShardWriter) -> list[str]:
    found = open_state(index.shard_store(0), writer.manifest).find(IDS)
    return [content_id for content_id in IDS if found[content_id].state.is_live]


def test_a_commit_is_visible_on_another_machine(index: IndexDirectory, elsewhere: IndexDirectory) -> None:
    writer = take_over(index)
    add(writer, [content("a"), content("b", 1)])
    writer.commit()
    add(writer, [removal("a", 2)])
    writer.commit()
    writer.renew_watermark(1_700_000_000_000)
    successor = take_over(elsewhere)
    assert successor.next_offset == 3
    assert live_ids(elsewhere, successor) == ["b"]
    watermark = read_watermark(elsewhere.shard_store(0))
    assert watermark is not None
    assert watermark.next_offset == 3


def test_a_former_owner_is_fenced(index: IndexDirectory, elsewhere: IndexDirectory) -> None:
    former, successor = take_over(index), take_over(elsewhere)
    add(successor, [content("a")])
    successor.commit()
    add(former, [content("b")])
    with pytest.raises(Fenced):
        former.commit()
    assert live_ids(index, successor) == ["a"]


def test_merges_and_garbage_leave_one_segment(index: IndexDirectory, elsewhere: IndexDirectory) -> None:
    now, lanes = [time.time()], InlineLanes()
    settings = WriterSettings(collect_every_seconds=0, merge=MergeSettings(2, max_dead_share=1.0))
    writer = take_over(index, settings=settings, lanes=lanes, clock=lambda: now[0])
    for offset, content_id in enumerate("ab"):
        add(writer, [content(content_id, offset)])
        writer.commit()
    writer.maintain()
    add(writer, [removal("a", 2)])
    writer.commit()
    lanes.release(is_released=True)
    writer.maintain()
    for offset in (3, 4, 5):
        add(writer, [removal("nobody", offset)])
        writer.commit()
    now[0] += 3600
    writer.maintain()
    [segment] = writer.manifest.segments
    assert [f"segments/{name}" for name in writer.store.list_names("segments")] == [segment.stored_name]
    assert len(list_generations(writer.store)) == 3
    assert live_ids(elsewhere, writer) == ["b"]


def test_a_rollback_shows_a_former_generation(index: IndexDirectory, elsewhere: IndexDirectory) -> None:
    writer = take_over(index)
    for offset, content_id in enumerate("ab"):
        add(writer, [content(content_id, offset)])
        writer.commit()
    store = elsewhere.shard_store(0)
    commit_restoration(store, plan_rollback(Inspection(store), 2), writer_id="rollback")
    assert live_ids(elsewhere, take_over(elsewhere)) == ["a"]


@pytest.mark.parametrize(
    ("change", "objects"),
    [
        pytest.param(content("c", 2), ["manifest", "segments"], id="an upload"),
        pytest.param(content("b", 2), ["manifest", "segments"], id="an upload in place of another"),
        pytest.param(removal("a", 2), ["manifest"], id="a delete"),
        pytest.param(removal("a", 2, 7), ["manifest", "segments"], id="a delete that is remembered"),
    ],
)
def test_a_commit_is_at_most_two_objects_and_a_listing(
    bucket: ObjectBucket, tmp_path: Path, change: Change, objects: list[str]
) -> None:
    """Each put costs money and some 100 ms. The listing stays: a free number alone proves nothing."""
    counted = FaultyBucket(bucket, 10**9, Fault.NOT_DONE)
    index = IndexDirectory(object_store(counted, "indexes/main", tmp_path / "one"), "main", description())
    with closing(take_over(index)) as writer:
        add(writer, [content("a"), content("b", 1)])
        writer.commit()
        num_requests, names = counted.num_requests, set(bucket.list_all("indexes/main"))
        add(writer, [change])
        writer.commit()
        writer.maintain()
    added = set(bucket.list_all("indexes/main")) - names
    assert sorted(name.split("/")[3][:8] for name in added) == objects
    assert counted.num_requests - num_requests == len(objects) + 1


def test_a_merge_in_a_child_process_reads_and_writes_the_bucket(s3_url: str, tmp_path: Path) -> None:
    root = ObjectRoot(f"{s3_url}/index", tmp_path / "cache")
    settings = WriterSettings(merge=MergeSettings(2, max_dead_share=1.0))
    index = IndexDirectory.create(root, "main", description())
    with closing(take_over(index, settings=settings)) as writer:
        for offset, content_id in enumerate("ab"):
            add(writer, [content(content_id, offset)])
            writer.commit()
        merged = len(writer.manifest.segments)
        deadline = time.monotonic() + 60
        while len(writer.manifest.segments) == merged and time.monotonic() < deadline:
            writer.maintain()
            time.sleep(0.05)
        [segment] = writer.manifest.segments
        assert segment.num_contents == 2
        assert live_ids(index, writer) == ["a", "b"]


def test_a_damaged_object_is_named_by_its_address(index: IndexDirectory) -> None:
    writer = take_over(index)
    name = manifest_name(writer.generation)
    writer.store.replace(name, b"{}")
    with pytest.raises(DamagedFile, match=f"memory://bucket/indexes/main/content-uploads-0/{name}"):
        take_over(index)
