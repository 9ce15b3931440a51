"""What every store of a shard promises. Another implementation joins by its factory in `STORES`."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_index.storage import local_store
from clip_index.storage.buckets.object_bucket import open_bucket
from clip_index.storage.file_digest import digest_of, verify_file
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import UNFINISHED_PREFIX, CreationUnknown, ShardStore
from fakes.object_stores import memory_bucket, object_store
from tests.fixtures.buckets import reach

Factory = Callable[[Path], ShardStore]


def local(directory: Path) -> ShardStore:
    return LocalShardStore(directory / "root" / "uploads-0")


def bucket(directory: Path) -> ShardStore:
    return object_store(memory_bucket(), "root/uploads-0", directory / "cache")


STORES = [pytest.param(local, id="local"), pytest.param(bucket, id="bucket")]
SERVERS = ["s3_gateway", "moto_server", "azurite_server"]


@pytest.fixture(params=[*STORES, *SERVERS])
def unprepared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardStore:
    if isinstance(request.param, str):
        url = reach(request.getfixturevalue(request.param), monkeypatch)
        return object_store(open_bucket(f"{url}/some/folder"), "root/uploads-0", tmp_path / "cache")
    new_store: Factory = request.param
    return new_store(tmp_path)


@pytest.fixture
def store(unprepared: ShardStore) -> ShardStore:
    unprepared.prepare(["segments", "tombstones"])
    return unprepared


def stage(store: ShardStore, name: str, data: bytes) -> None:
    store.staging_path(name).write_bytes(data)


def test_a_store_that_is_prepared_twice_keeps_its_files(store: ShardStore) -> None:
    store.put({"tombstones/a": b"1"})
    store.prepare(["segments", "tombstones"])
    assert store.read("tombstones/a") == b"1"


def test_a_shard_that_nobody_has_begun_is_empty(unprepared: ShardStore) -> None:
    assert unprepared.list_names() == []
    assert unprepared.list_times("segments") == {}
    assert not unprepared.exists("manifest")


def test_what_is_created_is_there(store: ShardStore) -> None:
    store.create_exclusively("one", b"data")
    assert store.exists("one")
    assert store.read("one") == b"data"
    assert "one" in store.list_names()


def test_a_question_for_a_file_is_answered_anew_each_time(unprepared: ShardStore) -> None:
    is_there = unprepared.look_for("one")
    assert not is_there()
    unprepared.prepare([])
    assert not is_there()
    unprepared.create_exclusively("one", b"data")
    assert is_there()
    unprepared.remove("one")
    assert not is_there()


def test_a_name_is_taken_once(store: ShardStore) -> None:
    store.create_exclusively("one", b"first")
    with pytest.raises(FileExistsError):
        store.create_exclusively("one", b"second")
    assert store.read("one") == b"first"


def test_of_many_creators_one_wins_and_each_is_told_the_truth(store: ShardStore) -> None:
    winners = []

    def create(data: bytes) -> None:
        try:
            store.create_exclusively("one", data)
        except FileExistsError:
            return
        winners.append(data)

    creators = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(8)]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join()
    assert winners == [store.read("one")]


def test_a_name_that_was_removed_is_free_again(store: ShardStore) -> None:
    """So a create that succeeds does not prove that nobody went further: a commit lists as well."""
    store.create_exclusively("one", b"first")
    store.remove("one")
    store.create_exclusively("one", b"second")
    assert store.read("one") == b"second"


def test_an_unfinished_write_shows_only_under_its_prefix(store: ShardStore) -> None:
    store.create_exclusively("one", b"first")
    with pytest.raises(FileExistsError):
        store.create_exclusively("one", b"second")
    store.put({"tombstones/a": b"1"})
    assert store.list_names("tombstones") == ["a"]
    assert [name for name in store.list_names() if name not in ("segments", "tombstones")] == ["one"]


def test_small_files_are_put_together(store: ShardStore) -> None:
    store.put({"tombstones/a": b"1", "tombstones/b": b"2"})
    assert sorted(store.list_names("tombstones")) == ["a", "b"]
    assert store.read("tombstones/b") == b"2"


def test_a_file_can_be_replaced(store: ShardStore) -> None:
    store.replace("watermark", b"1")
    store.replace("watermark", b"22")
    assert store.read("watermark") == b"22"


def test_a_file_is_ensured_once_and_the_second_call_changes_nothing(store: ShardStore) -> None:
    store.ensure("index.json", b"first")
    store.ensure("index.json", b"second")
    assert store.read("index.json") == b"first"


def test_a_renewed_file_has_its_bytes_and_is_young(store: ShardStore) -> None:
    store.prepare(["centroids"])
    store.renew("centroids/a.npy", b"set")
    before = store.list_times("centroids")["a.npy"]
    if isinstance(store, LocalShardStore):
        os.utime(store.path / "centroids" / "a.npy", (1.0, 1.0))
        before -= 1.0
    store.renew("centroids/a.npy", b"set")
    assert store.read("centroids/a.npy") == b"set"
    assert store.list_names("centroids") == ["a.npy"]
    assert store.list_times("centroids")["a.npy"] >= before, "a store may tell whole seconds"


def test_a_store_below_another_shares_its_files(store: ShardStore) -> None:
    below = store.below("tombstones")
    below.put({"a": b"1"})
    assert store.read("tombstones/a") == b"1"
    assert below.name == "tombstones"


def test_a_store_tells_that_it_can_create_exclusively(store: ShardStore) -> None:
    before = store.list_names()
    assert store.can_create_exclusively()
    assert store.list_names() == before


def test_a_reader_sees_the_old_bytes_or_the_new_ones(store: ShardStore) -> None:
    texts = [bytes([65 + i]) * 50_000 for i in range(3)]
    store.replace("watermark", texts[0])

    def replace_often() -> None:
        for i in range(60):
            store.replace("watermark", texts[i % 3])

    writer = threading.Thread(target=replace_often)
    writer.start()
    while writer.is_alive():
        assert store.read("watermark") in texts
    writer.join()


def test_a_staged_file_is_published_whole_with_its_digest(store: ShardStore) -> None:
    stage(store, "segments/1-a.pack", b"rows")
    assert not store.exists("segments/1-a.pack")
    digest = store.publish("segments/1-a.pack")
    assert digest == digest_of(b"rows")
    verify_file(store.local_file("segments/1-a.pack"), digest)
    assert store.list_names("segments") == ["1-a.pack"]
    assert not store.local_file("segments/1-a.pack").stat().st_mode & 0o222


def test_what_is_staged_is_no_part_of_the_store(store: ShardStore) -> None:
    stage(store, "segments/1-a", b"rows")
    assert "1-a" not in store.list_names("segments")
    store.remove_staged("segments/1-a")
    assert not store.staging_path("segments/1-a").exists()
    store.remove_staged("segments/1-a")


def test_a_local_file_holds_the_bytes_and_is_read_only(store: ShardStore) -> None:
    store.put({"tombstones/a": b"bits"})
    path = store.local_file("tombstones/a")
    assert path.read_bytes() == b"bits"
    assert not path.stat().st_mode & 0o222


def test_removing_is_for_files_and_folders_and_may_be_repeated(store: ShardStore) -> None:
    stage(store, "segments/1-a", b"rows")
    store.publish("segments/1-a")
    store.put({"tombstones/a": b"1"})
    for _ in range(2):
        store.remove("segments/1-a")
        store.remove("tombstones/a")
    assert store.list_names("segments") == store.list_names("tombstones") == []


def test_a_missing_file_is_told_apart_from_trouble(store: ShardStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("one")
    with pytest.raises(FileNotFoundError):
        store.local_file("segments/1-a/contents").read_bytes()


def test_a_listing_tells_when_each_name_came(store: ShardStore) -> None:
    before = time.time()
    store.put({"tombstones/a": b"1"})
    [(name, modified_at)] = store.list_times("tombstones").items()
    assert name == "a"
    assert before - 2 <= modified_at <= time.time() + 2


def test_an_address_names_the_store_and_each_file(store: ShardStore) -> None:
    assert store.name == "uploads-0"
    assert store.address.endswith("uploads-0")
    assert store.address_of("tombstones/a").startswith(store.address)


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "input/output error")


class TestTroubleOfADirectory:
    """What a link or an fsync that fails leaves known and unknown."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalShardStore:
        store = LocalShardStore(tmp_path / "uploads-0")
        store.prepare(["segments", "tombstones"])
        return store

    def test_before_the_link_nothing_has_happened(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local_store, "write_file", fail)
        with pytest.raises(OSError, match="input/output"):
            store.create_exclusively("one", b"data")
        assert sorted(store.list_names()) == ["segments", "tombstones"]

    def test_a_failed_link_may_still_be_on_its_way(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", fail)
        with pytest.raises(CreationUnknown, match="input/output"):
            store.create_exclusively("one", b"data")

    def test_a_link_that_happened_in_spite_of_its_error_is_ours(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def link_and_fail(source: Path, target: Path) -> None:
            link(source, target)
            raise FileExistsError(errno.EEXIST, "as a repeated request finds it")

        monkeypatch.setattr(os, "link", link_and_fail)
        store.create_exclusively("one", b"data")
        assert store.read("one") == b"data"

    def test_no_room_is_a_clear_answer(self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail_for_want_of_room(*_: object) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr(os, "link", fail_for_want_of_room)
        with pytest.raises(OSError, match="no space"):
            store.create_exclusively("one", b"data")

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
    def test_a_file_system_without_hard_links_is_told(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", refuse)
        assert not store.can_create_exclusively()
        assert not [name for name in store.list_names() if name.startswith(UNFINISHED_PREFIX)]

    @pytest.mark.parametrize("operation", ["link", "open"])
    @pytest.mark.parametrize(
        "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE], ids=errno.errorcode.get
    )
    def test_trouble_with_the_disk_says_nothing_about_hard_links(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        if operation == "link":
            monkeypatch.setattr(os, "link", refuse)
        else:
            monkeypatch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            store.can_create_exclusively()
        assert not [name for name in store.list_names() if name.startswith(UNFINISHED_PREFIX)]

    def test_what_is_there_is_ensured_without_a_write(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.ensure("one", b"data")
        monkeypatch.setattr(os, "link", fail)
        store.ensure("one", b"other")
        assert store.read("one") == b"data"

    def test_after_a_failed_fsync_of_the_directory_only_the_disk_can_tell(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not tried again, because the kernel reports lost pages once."""
        calls = []

        def fail_once(path: Path) -> None:
            calls.append(path)
            fail()

        monkeypatch.setattr(local_store, "fsync_path", fail_once)
        with pytest.raises(CreationUnknown, match="could not be fsynced"):
            store.create_exclusively("one", b"data")
        assert calls == [store.path]

    def test_each_file_is_fsynced_once_and_its_directory_after_it(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync, synced = os.fsync, []

        def record(descriptor: int) -> None:
            synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), store.path))
            fsync(descriptor)

        stage(store, "segments/1-a", b"rows")
        monkeypatch.setattr(os, "fsync", record)
        store.publish("segments/1-a")
        assert synced == ["segments/.tmp-1-a", "segments"]
        synced.clear()
        store.put({"tombstones/a": b"1", "tombstones/b": b"2"})
        assert synced == ["tombstones/a", "tombstones/b", "tombstones"]
        synced.clear()
        store.create_exclusively("one", b"data")
        assert len(synced) == 2
        assert synced[1] == "."
        synced.clear()
        store.replace("watermark", b"1")
        assert synced == []

    def test_a_published_file_whose_name_is_not_durable_is_not_left_behind(
        self, store: LocalShardStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage(store, "segments/1-a", b"rows")
        fsync_path = local_store.fsync_path
        monkeypatch.setattr(
            local_store, "fsync_path", lambda path: fail() if path.name == "segments" else fsync_path(path)
        )
        with pytest.raises(OSError, match="input/output"):
            store.publish("segments/1-a")
        assert store.list_names("segments") == []
