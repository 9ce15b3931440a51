"""A commit on a disk that fails, fills up, or has a second writer on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_index.errors import CommitUnknown, Fenced
from clip_index.generations import history
from clip_index.generations.history import list_generations
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage import local_store
from clip_index.storage.local_store import LocalShardStore
from clip_index.writing import current_state, shard_state
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.failing_disk import fail, fail_for_want_of_room, fail_to_fsync_the_shard, no_room_to_write
from fakes.shards import add, content, create_index, path_of, removal, take_over, unit_vectors


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    return take_over(index)


def live_ids(index: IndexDirectory) -> set[str]:
    reader = IndexReader(index.path.parent.parent)
    reader.reload()
    assert reader.searcher is not None
    return {hit.content_id for hit in reader.searcher.search(unit_vectors(1), k=100, modality="image")[0]}


def segment_names(writer: ShardWriter) -> set[str]:
    return {path.name for path in (path_of(writer) / "segments").iterdir()}


@pytest.fixture
def two_dead(index: IndexDirectory, writer: ShardWriter) -> ShardWriter:
    """A writer that has committed three contents and buffered the deletes of two."""
    add(writer, [lambda o, i=i: content(i, o) for i in "abc"])
    writer.commit()
    add(writer, [lambda o: removal("a", o), lambda o: removal("b", o)])
    return writer


def fail_to_unlink(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "unlink", fail)
    patch.setattr(os, "unlink", fail)


def fail_to_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(history, "list_generations", fail)


@pytest.mark.parametrize("trouble", [fail_to_unlink, fail_to_list])
def test_trouble_behind_the_link_never_looks_like_trouble_before_it(
    index: IndexDirectory,
    two_dead: ShardWriter,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None],
) -> None:
    with monkeypatch.context() as patch:
        trouble(patch)
        with contextlib.suppress(CommitUnknown):
            two_dead.commit()
    assert live_ids(index) == {"c"}
    assert take_over(index).next_offset == 5


def test_a_segment_that_cannot_be_opened_is_never_committed(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before = segment_names(two_dead)
    with monkeypatch.context() as patch:
        patch.setattr(shard_state, "Segment", fail)
        with pytest.raises(OSError, match="input/output"):
            two_dead.commit()
    assert live_ids(index) == {"a", "b", "c"}
    assert segment_names(two_dead) == before, "an attempt that failed leaves no segment on a full disk"
    two_dead.commit()
    assert live_ids(index) == {"c", "d"}


def test_a_writer_that_goes_on_after_an_unknown_outcome_harms_nothing(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next commit has the number, and so once had the file names, of the one on disk."""
    with monkeypatch.context() as patch:
        fail_to_fsync_the_shard(patch)
        with pytest.raises(CommitUnknown):
            two_dead.commit()
    add(two_dead, [lambda o: removal("c", o)])
    with pytest.raises(CommitUnknown, match="is not the newest"):
        two_dead.commit()
    assert live_ids(index) == {"c"}


def test_tombstones_left_by_a_failed_commit_do_not_stop_the_next(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail_for_want_of_room)
        with pytest.raises(OSError, match="no space"):
            two_dead.commit()
    add(two_dead, [lambda o: removal("c", o)])
    two_dead.commit()
    assert live_ids(index) == set()


def no_room_to_link(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "link", fail_for_want_of_room)


@pytest.mark.parametrize("trouble", [no_room_to_write, no_room_to_link])
def test_a_manifest_without_room_leaves_no_segment_behind(
    index: IndexDirectory,
    two_dead: ShardWriter,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None],
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before = segment_names(two_dead)
    with monkeypatch.context() as patch:
        trouble(patch)
        for _ in range(3):
            with pytest.raises(OSError, match="no space"):
                two_dead.commit()
    assert segment_names(two_dead) == before
    two_dead.commit()
    assert live_ids(index) == {"c", "d"}


def test_a_segment_whose_name_is_not_durable_is_not_left_behind(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before, fsync_path = segment_names(two_dead), local_store.fsync_path

    def fail_for_the_last(path: Path) -> None:
        fail() if path.name == "segments" else fsync_path(path)

    with monkeypatch.context() as patch:
        patch.setattr(local_store, "fsync_path", fail_for_the_last)
        with pytest.raises(OSError, match="input/output"):
            two_dead.commit()
    assert segment_names(two_dead) == before
    two_dead.commit()
    assert live_ids(index) == {"c", "d"}


def link_and_report_an_error(patch: pytest.MonkeyPatch) -> None:
    link = os.link

    def failing_link(source: Path, target: Path) -> None:
        link(source, target)
        patch.setattr(LocalShardStore, "read", fail)
        fail()

    patch.setattr(os, "link", failing_link)


def lose_the_race_and_fail_to_read(patch: pytest.MonkeyPatch) -> None:
    """The link has happened, a greater generation is there, and then the disk does not answer."""
    patch.setattr(history, "_list_newest", lambda *_: 10**9)
    patch.setattr(current_state, "read_newest", fail)


@pytest.mark.parametrize(
    "trouble", [fail_to_fsync_the_shard, link_and_report_an_error, lose_the_race_and_fail_to_read]
)
def test_behind_the_link_no_error_deletes_what_the_manifest_may_name(
    index: IndexDirectory,
    two_dead: ShardWriter,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None],
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before = segment_names(two_dead)
    with monkeypatch.context() as patch:
        trouble(patch)
        with pytest.raises((CommitUnknown, OSError)):
            two_dead.commit()
    assert len(segment_names(two_dead) - before) == 1
    assert live_ids(index) == {"c", "d"}


def test_a_link_that_may_still_be_on_its_way_leaves_the_outcome_unknown(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system does it: the caller is told of an error, the server goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        with pytest.raises(CommitUnknown, match="input/output error"):
            two_dead.commit()
    assert live_ids(index) == {"a", "b", "c"}
    assert take_over(index).next_offset == 3


def test_a_link_that_happened_in_spite_of_its_error_is_a_commit(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_fail(source: Path, target: Path) -> None:
        link(source, target)
        fail()

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link_and_fail)
        assert two_dead.commit() == 5
    assert live_ids(index) == {"c"}


def test_our_own_manifest_that_was_misread_once_leaves_the_outcome_unknown(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, read, misread = os.link, LocalShardStore.read, []

    def link_and_fail(source: Path, target: Path) -> None:
        link(source, target)
        fail()

    def misread_once(store: LocalShardStore, name: str) -> bytes:
        if not misread:
            misread.append(name)
            return b""
        return read(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link_and_fail)
        patch.setattr(LocalShardStore, "read", misread_once)
        with pytest.raises(CommitUnknown, match="our own manifest"):
            two_dead.commit()
    assert live_ids(index) == {"c"}


def test_a_fenced_writer_that_maintains_deletes_nothing_and_learns_of_it(index: IndexDirectory) -> None:
    settings = WriterSettings(retain_for_seconds=0, collect_every_seconds=0)
    former = take_over(index, settings=settings, clock=lambda: time.time() + 3600)
    successor = take_over(index)
    under_way = path_of(successor) / "segments" / ".tmp-2-a-merge-of-the-successor"
    under_way.mkdir()
    for i in range(4):
        add(successor, [lambda o, i=i: content(f"{i}", o)])
        successor.commit()
    before = list_generations(successor.store)
    with pytest.raises(Fenced, match="own writer epoch 1, found 2"):
        former.maintain()
    assert under_way.exists()
    assert list_generations(successor.store) == before


def test_a_directory_that_a_dead_process_made_is_made_durable_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[tuple[int, int]] = set()
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.add((status.st_dev, status.st_ino))
        fsync(descriptor)

    root = tmp_path / "root"
    create_index(root)
    shard = root / "indexes" / "main" / "content-uploads-0"
    shard.mkdir()
    monkeypatch.setattr(os, "fsync", record)
    take_over(create_index(root))
    for directory in (tmp_path, root, root / "indexes", root / "indexes" / "main", shard):
        status = directory.stat()
        assert (status.st_dev, status.st_ino) in synced, directory
