"""What a shard's writer promises, seen through a reader."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest
from pyroaring import BitMap

from clip_index.content import Delta, Embeddings, StoredContent
from clip_index.errors import CommitUnknown, DamagedFile, DeltaMismatch, Fenced
from clip_index.generations.history import list_generations, manifest_name, read_newest
from clip_index.generations.tombstones import read_tombstones
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.shards import (
    add,
    content,
    create_index,
    pack_path,
    patch,
    path_of,
    removal,
    root_of,
    take_over,
    unit_vectors,
)
from fakes.stored_damage import newest_pack, rewrite, stored_bytes
from tests.fixtures.roots import on_a_directory


@pytest.fixture
def index(root: IndexRoot) -> IndexDirectory:
    return create_index(root)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    return take_over(index)


def open_searcher(index: IndexDirectory) -> Searcher:
    reader = IndexReader(root_of(index))
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def live_ids(index: IndexDirectory) -> set[str]:
    searcher = open_searcher(index)
    hits = searcher.search(unit_vectors(1), k=1000, modality="image")[0]
    hits += searcher.search(unit_vectors(1), k=1000, modality="text")[0]
    return {hit.content_id for hit in hits}


def test_a_commit_makes_contents_searchable(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o, seed=1), lambda o: content("b", o, seed=2)])
    assert writer.commit() == 2
    [hits] = open_searcher(index).search(unit_vectors(2), k=1, modality="image")
    assert [hit.content_id for hit in hits] == ["b"]
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)


def test_what_is_not_committed_is_not_visible(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o)])
    assert live_ids(index) == set()
    assert open_searcher(index).shards["content-uploads-0"].next_offset == 0


def test_every_column_comes_back(index: IndexDirectory, writer: ShardWriter) -> None:
    sent = content(
        "a",
        0,
        version=7,
        owner_id="ann",
        link="https://shop.example/a",
        text="a red dress",
        metadata={"colour": "red", "price": 12.5, "in_stock": True},
        thumbnail=b"webp",
    )
    add(writer, [sent])
    writer.commit()
    searcher = open_searcher(index)
    location = searcher.find("a")
    assert location is not None
    stored = searcher.read(location)
    for name in ("content_id", "offset", "modality", "version", "facts"):
        assert getattr(stored, name) == getattr(sent, name)
    assert searcher.thumbnail(location) == b"webp"
    assert searcher.embeddings(location) == pytest.approx(sent.embeddings, abs=1e-3)


def test_an_update_replaces_and_a_delete_removes(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o, seed=1), lambda o: content("b", o, seed=2)])
    writer.commit()
    add(writer, [lambda o: content("a", o, seed=3), lambda o: removal("b", o)])
    writer.commit()
    searcher = open_searcher(index)
    [hits] = searcher.search(unit_vectors(1), k=10, modality="image")
    assert [hit.content_id for hit in hits] == ["a"]
    assert hits[0].score < 0.9
    assert searcher.find("b") is None
    assert searcher.shards["content-uploads-0"].num_contents == {"image": 1, "text": 0}


def test_a_delta_that_does_not_fit_is_refused(writer: ShardWriter) -> None:
    with pytest.raises(DeltaMismatch, match="starts at 5, expected 0"):
        writer.add(Delta(5, 6, [content("a", 5)]))


def test_offsets_without_changes_are_covered(index: IndexDirectory, writer: ShardWriter) -> None:
    writer.add(Delta(0, 17))
    assert writer.commit() == 17
    assert open_searcher(index).shards["content-uploads-0"].next_offset == 17


def test_a_commit_without_news_makes_no_generation(writer: ShardWriter) -> None:
    before = writer.generation
    assert writer.commit() == 0
    assert writer.generation == before


def test_a_new_shard_starts_at_the_logs_start(index: IndexDirectory) -> None:
    writer = take_over(index, first_offset=100)
    assert (writer.first_offset, writer.next_offset) == (100, 100)


def test_a_successor_goes_on_where_the_former_owner_committed(index: IndexDirectory) -> None:
    former = take_over(index)
    add(former, [lambda o: content("a", o), lambda o: content("b", o)])
    former.commit()
    add(former, [lambda o: content("c", o)])
    successor = take_over(index, first_offset=0)
    assert successor.next_offset == 2
    assert successor.epoch == former.epoch + 1
    assert live_ids(index) == {"a", "b"}


def test_a_former_owner_is_fenced_and_deletes_nothing(index: IndexDirectory) -> None:
    former = take_over(index)
    successor = take_over(index)
    add(successor, [lambda o: content("a", o)])
    successor.commit()
    add(former, [lambda o: content("b", o)])
    with pytest.raises(Fenced, match="own writer epoch 1, found 2"):
        former.commit()
    assert live_ids(index) == {"a"}


def test_a_writer_that_slept_until_its_number_was_collected_still_loses(index: IndexDirectory) -> None:
    now = time.time()
    settings = WriterSettings(retain_for_seconds=0.0, collect_every_seconds=0.0)
    former = take_over(index)
    successor = take_over(index, settings=settings, clock=lambda: now + 3600)
    for i in range(6):
        add(successor, [lambda o, i=i: content(f"new-{i}", o)])
        successor.commit()
    successor.maintain()
    assert former.generation + 1 not in list_generations(former.store)
    add(former, [lambda o: content("stale", o)])
    with pytest.raises(Fenced):
        former.commit()
    assert live_ids(index) == {f"new-{i}" for i in range(6)}
    add(successor, [lambda o: content("later", o)])
    successor.commit()
    assert "later" in live_ids(index)


@on_a_directory
def test_a_former_owner_that_commits_once_does_not_stop_the_new_owner(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former owner commits between the new one's reading and its link."""
    former = take_over(index)
    add(former, [lambda o: content("a", o)])
    link, calls = os.link, []

    def link_after_the_former_owner(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 1:
            former.commit()
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_the_former_owner)
    successor = take_over(index)
    assert successor.next_offset == 1
    assert successor.epoch == former.epoch + 1
    add(successor, [lambda o: content("b", o)])
    successor.commit()
    assert live_ids(index) == {"a", "b"}


@on_a_directory
def test_a_link_whose_answer_was_lost_is_recognised(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_fail(source: str, target: str) -> None:
        link(source, target)
        raise OSError("the answer was lost")

    add(writer, [lambda o: content("a", o)])
    monkeypatch.setattr(os, "link", link_and_fail)
    assert writer.commit() == 1
    assert live_ids(index) == {"a"}


@on_a_directory
def test_a_link_for_which_there_is_no_room_leaves_everything_and_may_be_tried_again(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, [lambda o: content("a", o)])
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "disk full")
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match="disk full"):
            writer.commit()
    assert live_ids(index) == set()
    assert writer.commit() == 1
    assert live_ids(index) == {"a"}


@on_a_directory
def test_a_failed_directory_fsync_leaves_the_outcome_to_the_disk(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, [lambda o: content("a", o)])
    fsync = os.fsync

    def fail_on_the_shard_directory(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), os.stat(path_of(writer))):
            raise OSError("input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_the_shard_directory)
    with pytest.raises(CommitUnknown, match="could not be fsynced"):
        writer.commit()


def test_a_damaged_manifest_is_never_skipped(index: IndexDirectory, writer: ShardWriter) -> None:
    name = manifest_name(writer.generation)
    damaged = writer.store.read(name).replace(b'"writer_epoch":1', b'"writer_epoch":2')
    rewrite(writer.store, name, damaged)
    with pytest.raises(DamagedFile, match=name):
        take_over(index)


def test_a_damaged_segment_is_refused_at_takeover(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    name = newest_pack(writer)
    data = bytearray(stored_bytes(writer.store, name))
    data[-1] ^= 1
    rewrite(writer.store, name, bytes(data))
    with pytest.raises(DamagedFile, match=f"{name}: .*xxh3-128"):
        take_over(index)


def test_remembered_deletes_survive_the_writer(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o, version=3), lambda o: removal("a", o, version=5)])
    writer.commit()
    successor = take_over(index)
    add(successor, [lambda o: content("a", o, version=5)])
    successor.commit()
    assert live_ids(index) == set()
    add(successor, [lambda o: content("a", o, version=6)])
    successor.commit()
    assert live_ids(index) == {"a"}


def merge_until_quiet(writer: ShardWriter, deadline_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + deadline_seconds
    writer.maintain()
    while writer._merges.merged_ids():
        assert time.monotonic() < deadline, "merge did not end"
        time.sleep(0.01)
        writer.maintain()


@on_a_directory
def test_merges_leave_one_segment_with_everything_alive(index: IndexDirectory) -> None:
    settings = WriterSettings(merge=MergeSettings(merge_factor=4))
    writer = take_over(index, settings=settings)
    for i in range(4):
        add(writer, [lambda o, i=i, j=j: content(f"{i}-{j}", o, seed=10 * i + j) for j in range(5)])
        add(writer, [lambda o, i=i: content(f"t{i}", o, modality="text", num_rows=3, text="t")])
        writer.commit()
    add(writer, [lambda o: removal("0-4", o)])
    writer.commit()
    before = live_ids(index)
    next_offset = writer.committed_next_offset
    merge_until_quiet(writer)
    writer.close()
    assert len(writer.manifest.segments) == 1
    assert writer.manifest.segments[0].num_contents == 4 * 5 - 1 + 4
    assert writer.committed_next_offset == next_offset
    assert live_ids(index) == before
    [hits] = open_searcher(index).search(unit_vectors(23), k=1, modality="image")
    assert hits[0].content_id == "2-3"


@on_a_directory
def test_rows_that_die_while_a_merge_runs_stay_dead(index: IndexDirectory) -> None:
    settings = WriterSettings(merge=MergeSettings(merge_factor=4))
    writer = take_over(index, settings=settings)
    for i in range(4):
        add(writer, [lambda o, i=i, j=j: content(f"{i}-{j}", o) for j in range(3)])
        writer.commit()
    writer.maintain()
    assert writer._merges.merged_ids()
    add(writer, [lambda o: removal("0-0", o), lambda o: content("1-1", o, seed=99)])
    writer.commit()
    add(writer, [lambda o: removal("2-2", o)])  # buffered when the merge is committed
    merge_until_quiet(writer)
    writer.commit()
    writer.close()
    assert live_ids(index) == {f"{i}-{j}" for i in range(4) for j in range(3)} - {"0-0", "2-2"}
    searcher = open_searcher(index)
    location = searcher.find("1-1")
    assert location is not None
    assert searcher.embeddings(location) == pytest.approx(unit_vectors(99), abs=1e-3)


@on_a_directory
def test_a_killed_merge_leaves_the_shard_as_it_was(index: IndexDirectory) -> None:
    writer = take_over(index, settings=WriterSettings(merge=MergeSettings(merge_factor=2)))
    for i in range(2):
        add(writer, [lambda o, i=i: content(f"{i}", o)])
        writer.commit()
    writer.maintain()
    writer.close()
    assert len(writer.manifest.segments) == 2
    assert live_ids(index) == {"0", "1"}


@on_a_directory
def test_garbage_goes_when_no_retained_generation_names_it(index: IndexDirectory) -> None:
    now = [time.time()]
    settings = WriterSettings(retain_for_seconds=600, collect_every_seconds=0, merge=MergeSettings(2))
    writer = take_over(index, settings=settings, clock=lambda: now[0])
    for i in range(2):
        add(writer, [lambda o, i=i: content(f"{i}", o)])
        writer.commit()
    merge_until_quiet(writer)
    (path_of(writer) / "segments" / ".tmp-left-by-a-crash").mkdir()
    writer.maintain()
    assert len(list((path_of(writer) / "segments").iterdir())) == 4, "young files stay for readers"
    for i in range(3):
        add(writer, [lambda o, i=i: removal(f"nobody-{i}", o)])
        writer.commit()
    now[0] += 3600
    writer.maintain()
    writer.close()
    assert list((path_of(writer) / "segments").iterdir()) == [pack_path(writer)]
    assert len(list_generations(writer.store)) == 3
    newest = read_newest(writer.store)
    assert newest == writer.manifest


def test_identical_pictures_are_one_node_and_all_found(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o, i=i: content(f"copy-{i}", o, seed=5) for i in range(20)])
    add(writer, [lambda o: content("other", o, seed=6)])
    writer.commit()
    assert writer.manifest.segments[0].num_vectors == {"image": 2}
    [hits] = open_searcher(index).search(unit_vectors(5), k=21, modality="image")
    assert len({hit.content_id for hit in hits}) == 21


def test_k_counts_contents_not_windows(index: IndexDirectory, writer: ShardWriter) -> None:
    query = unit_vectors(1)
    near = [query[0] + 0.01 * unit_vectors(i)[0] for i in range(8)]
    near = np.array([v / np.linalg.norm(v) for v in near], np.float32)
    add(writer, [lambda o: content("long", o, modality="text", embeddings=near)])
    add(writer, [lambda o, i=i: content(f"short-{i}", o, modality="text", seed=50 + i) for i in range(4)])
    writer.commit()
    [hits] = open_searcher(index).search(query, k=3, modality="text")
    assert len(hits) == 3
    assert hits[0].content_id == "long"
    assert len({hit.content_id for hit in hits}) == 3


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "in the buffer"])
def test_a_patch_changes_facts_and_keeps_everything_else(
    index: IndexDirectory, writer: ShardWriter, is_committed: bool
) -> None:
    facts = {"title": "shoe", "link": "https://shop.example/a", "metadata": {"colour": "red", "price": 2.0}}
    add(
        writer,
        [
            lambda o: content(
                "a", o, modality="text", num_rows=3, text="a", version=4, thumbnail=b"t", **facts
            )
        ],
    )
    if is_committed:
        writer.commit()
    before = {} if not is_committed else {"embeddings": read_one(index, "a")[1]}
    changes = {
        "title": "shoes",
        "metadata": {"price": 3.0, "tags": ("sale",)},
        "removed": frozenset({"link"}),
    }
    add(writer, [lambda o: patch("a", o, **changes)])
    writer.commit()
    stored, embeddings, thumbnail = read_one(index, "a")
    assert (stored.facts.title, stored.facts.link) == ("shoes", None)
    assert stored.facts.metadata == {"colour": "red", "price": 3.0, "tags": ("sale",)}
    assert (stored.version, stored.offset, stored.facts.text, thumbnail) == (4, 1, "a", b"t")
    assert stored.facts.patched_at_ms == 1_700_000_100_001
    assert stored.facts.occurred_at_ms == 1_700_000_000_000
    assert len(embeddings) == 3
    assert np.array_equal(embeddings, before.get("embeddings", embeddings))


def read_one(index: IndexDirectory, content_id: str) -> tuple[StoredContent, Embeddings, bytes | None]:
    searcher = open_searcher(index)
    location = searcher.find(content_id)
    assert location is not None
    return searcher.read(location), searcher.embeddings(location), searcher.thumbnail(location)


def test_a_patch_of_what_is_not_there_changes_nothing(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o, version=3), lambda o: removal("a", o, version=3)])
    writer.commit()
    add(writer, [lambda o: patch("a", o, title="shoe"), lambda o: patch("b", o, title="hat")])
    assert writer.commit() == 4
    assert live_ids(index) == set()
    assert open_searcher(index).floor("a") == 3


def test_an_upload_after_a_patch_replaces_all_of_it(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o), lambda o: patch("a", o, title="shoe"), lambda o: content("a", o)])
    writer.commit()
    stored, _, _ = read_one(index, "a")
    assert (stored.facts.title, stored.facts.patched_at_ms) == (None, None)


def test_the_freshness_of_a_patch_counts_from_the_patch(index: IndexDirectory, writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    former = open_searcher(index)
    add(writer, [lambda o: patch("a", o, title="shoe")])
    writer.commit()
    assert open_searcher(index).newcomers_since(former).tolist() == [1_700_000_100_001]


def test_a_file_of_tombstones_that_changes_after_it_was_verified_is_refused(index: IndexDirectory) -> None:
    writer = take_over(index, settings=WriterSettings(max_bitmap_bytes=0))
    add(writer, [lambda o: content(f"c{o}", o) for _ in range(20)])
    writer.commit()
    add(writer, [removal(f"c{n}", 20 + n) for n in range(5)])
    writer.commit()
    [entry] = writer.manifest.tombstones.values()
    [name] = writer.store.list_names("tombstones")
    rewrite(writer.store, f"tombstones/{name}", BitMap(range(5, 10)).serialize())
    with pytest.raises(DamagedFile, match="digest"):
        read_tombstones(writer.store, entry)


def test_patches_tell_what_they_have_read_into_memory(writer: ShardWriter) -> None:
    add(writer, [lambda o: content("a", o, modality="text", text="x" * 100_000)])
    writer.commit()
    add(writer, [lambda o: patch("a", o, title=str(o)) for _ in range(3)])
    assert 100_000 < writer.read_bytes < 150_000
    writer.commit()
    assert writer.read_bytes == 0
