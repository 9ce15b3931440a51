"""An index on a network file system, of which each machine remembers for a while what it saw.

A mount of these tests sees its own changes at once and those of others when its clock has moved on.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_index.errors import CommitUnknown
from clip_index.generations import garbage, history
from clip_index.generations.garbage import GarbageCollector
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.takeover import Claim, take_over_manifest
from clip_index.generations.watermark import read_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import PointerReader, name_current, name_former, read_pointer
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import StoreUnreachable
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from crashes.shard_life import check, live
from crashes.small_log import build_log
from fakes.network_mount import Mount, MountedStore
from fakes.shards import add, content, create_index, path_of, take_over

SECONDS = 30.0
SHARD = "indexes/main/content-uploads-0"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass a hundred times as fast, so that ten short pauses are longer than a mount remembers."""
        self.now += 100 * seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(history.time, "sleep", clock.sleep)
    return clock


@pytest.fixture
def mounted(tmp_path: Path, clock: Clock) -> Callable[..., MountedStore]:
    """Mount the directory on one more machine."""

    def mount(**options: Any) -> MountedStore:
        return MountedStore(tmp_path, mount=Mount(clock, SECONDS, **options))

    return mount


@pytest.fixture
def writer(mounted: Callable[..., MountedStore]) -> ShardWriter:
    return take_over(create_index(mounted()), settings=WriterSettings(retain_for_seconds=0.0))


def commit(writer: ShardWriter, *content_ids: str) -> None:
    add(writer, [content(content_id, writer.next_offset + n) for n, content_id in enumerate(content_ids)])
    writer.commit()


def looking(root: MountedStore) -> IndexReader:
    """A reader that lists at each reload."""
    reader = IndexReader(root, clock=itertools.count(0.0, 10.0).__next__)
    reader.reload()
    return reader


def generation_of(reader: IndexReader) -> int:
    assert reader.searcher is not None
    [snapshot] = reader.searcher.shards.values()
    return snapshot.generation


def test_a_new_generation_is_served_at_once_though_the_listing_is_old(
    writer: ShardWriter, mounted: Callable[..., MountedStore]
) -> None:
    commit(writer, "a")
    reader = looking(mounted())
    for content_id in "bcd":
        commit(writer, content_id)
    reader.reload()
    assert generation_of(reader) == writer.generation


def test_an_old_listing_never_takes_a_reader_back(
    writer: ShardWriter, mounted: Callable[..., MountedStore], clock: Clock
) -> None:
    commit(writer, "a")
    reader = looking(mounted())
    served = [generation_of(reader)]
    for content_id in "bcdef":
        commit(writer, content_id)
        for _ in range(3):
            clock.now += 7.0
            reader.reload()
            served.append(generation_of(reader))
    assert served == sorted(served)
    assert served[-1] == writer.generation


def test_a_mount_that_remembers_absent_files_serves_a_generation_when_it_has_forgotten(
    writer: ShardWriter, mounted: Callable[..., MountedStore], clock: Clock
) -> None:
    commit(writer, "a")
    reader = looking(mounted(remembers_absence=True))
    reader.reload()
    commit(writer, "b")
    reader.reload()
    assert generation_of(reader) == writer.generation - 1
    clock.now += SECONDS
    reader.reload()
    assert generation_of(reader) == writer.generation


def test_a_takeover_waits_for_a_listing_that_shows_what_the_former_owner_committed(
    writer: ShardWriter, mounted: Callable[..., MountedStore]
) -> None:
    store = mounted().below(SHARD)
    assert list_generations(store) == [1]
    for content_id in "abc":
        commit(writer, content_id)
    taken = take_over_manifest(store, Claim("successor"))
    assert (taken.generation, taken.next_offset) == (writer.generation + 1, 3)


def test_a_takeover_whose_listing_stays_old_changes_nothing_and_may_be_tried_again(
    writer: ShardWriter, mounted: Callable[..., MountedStore], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = mounted().below(SHARD)
    list_generations(store)
    commit(writer, "a")
    with monkeypatch.context() as patched:
        patched.setattr(history.time, "sleep", lambda _: None)
        with pytest.raises(StoreUnreachable, match="the listing is old: it ends with generation 1"):
            take_over_manifest(store, Claim("successor"))
    commit(writer, "b")
    clock.now += SECONDS
    assert take_over_manifest(store, Claim("successor")).next_offset == 2


def test_owners_on_two_machines_in_turn_leave_the_fold_of_the_log(
    tmp_path: Path, mounted: Callable[..., MountedStore], clock: Clock
) -> None:
    log = build_log(3, 48)
    machines, settings = [mounted(), mounted()], WriterSettings(retain_for_seconds=3600.0)
    reader = None
    for turn in range(1, 7):
        live(machines[turn % 2], log[: 8 * turn], lambda *_: None, settings=settings)
        reader = reader or looking(mounted())
        reader.reload()
        assert reader.searcher is not None
        check(reader.searcher, log)
        clock.now += 5.0
    assert reader is not None
    assert generation_of(reader) == max(list_generations(LocalShardStore(tmp_path).below(SHARD)))


class Forgetful(LocalShardStore):
    """Lists for a number of times what was there when it was made."""

    num_old = 0
    old: tuple[str, ...] = ()

    def below(self, folder: str) -> Forgetful:
        return Forgetful(self.path / folder, self.root or self.path)

    def list_names(self, folder: str = "") -> list[str]:
        if Forgetful.num_old:
            Forgetful.num_old -= 1
            return list(Forgetful.old)
        return super().list_names(folder)


@pytest.fixture
def forgetful(tmp_path: Path, clock: Clock) -> Iterator[ShardWriter]:
    writer = take_over(create_index(Forgetful(tmp_path)))
    Forgetful.old = tuple(os.listdir(path_of(writer)))
    yield writer
    Forgetful.num_old = 0


def test_a_commit_believes_no_listing_that_lacks_its_own_generation(
    forgetful: ShardWriter, tmp_path: Path
) -> None:
    add(forgetful, [content("a", 0)])
    Forgetful.num_old = 3
    forgetful.commit()
    assert forgetful.generation == 2


def test_the_outcome_is_unknown_while_the_listing_lacks_the_own_generation(forgetful: ShardWriter) -> None:
    add(forgetful, [content("a", 0)])
    Forgetful.num_old = 1000
    with pytest.raises(CommitUnknown, match="the listing does not show it"):
        forgetful.commit()


def test_a_file_that_is_removed_while_open_is_nobodys(
    writer: ShardWriter, mounted: Callable[..., MountedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client renames it, and answers "busy" to whoever removes it again."""
    commit(writer, "a")
    left = path_of(writer) / "segments" / ".nfs0000000000a1b2c300000001"
    left.write_bytes(b"still mapped")
    os.utime(left, (0, 0))
    monkeypatch.setattr(Path, "unlink", refusing(Path.unlink, left.name))
    collect(writer)
    assert left.exists()


def test_one_file_that_cannot_be_removed_keeps_no_other(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = path_of(writer) / "segments"
    folder.mkdir(exist_ok=True)
    names = ("1-a.pack", "1-b.pack", "1-c.pack")
    for name in names:
        (folder / name).write_bytes(b"garbage")
        os.utime(folder / name, (0, 0))
    monkeypatch.setattr(Path, "unlink", refusing(Path.unlink, names[1]))
    with pytest.raises(OSError, match="busy"):
        collect(writer)
    assert [path.name for path in folder.iterdir()] == [names[1]]


def test_what_a_generation_names_stays_as_long_as_the_generation_cannot_be_removed(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(writer, "a")
    [pack] = (path_of(writer) / "segments").iterdir()
    former = manifest_name(writer.generation)
    monkeypatch.setattr(Path, "unlink", refusing(Path.unlink, former))
    monkeypatch.setattr(garbage, "names_of", lambda manifest: only_of(manifest, former))
    for content_id in "bcd":
        commit(writer, content_id)
    with pytest.raises(OSError, match="busy"):
        collect(writer)
    assert (path_of(writer) / former).exists()
    assert pack.exists()


def only_of(manifest: Any, former: str) -> frozenset[str]:
    """Let one generation alone name its segments, as after a merge."""
    is_former = manifest_name(manifest.generation) == former
    return frozenset(entry.stored_name for entry in manifest.segments) if is_former else frozenset()


def collect(writer: ShardWriter) -> None:
    collector = GarbageCollector(writer.store, 0.0)
    collector.collect(newest=writer.generation, in_flight=(), now=4e9)


def refusing(unlink: Callable[..., None], name: str) -> Callable[..., None]:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == name:
            raise OSError(errno.EBUSY, "busy", str(path))
        unlink(path, missing_ok=missing_ok)

    return refuse


def test_a_file_that_another_machine_replaced_while_it_was_opened_is_read_again(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.renew_watermark(1_700_000_000_000)
    monkeypatch.setattr(os, "open", stale_once(os.open))
    found = read_watermark(writer.store)
    assert found is not None
    assert found.watermark_ms == 1_700_000_000_000


def test_a_listing_of_a_folder_whose_handle_is_stale_is_repeated(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listdir", stale_once(os.listdir))
    assert list_generations(LocalShardStore(path_of(writer))) == [1]


def test_a_mount_whose_handles_stay_stale_is_trouble_and_no_missing_file(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object, **__: object) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "open", stale)
    with pytest.raises(OSError, match="Stale") as told:
        LocalShardStore(path_of(writer)).read(manifest_name(1))
    assert not isinstance(told.value, FileNotFoundError)


def stale_once(action: Callable[..., Any]) -> Callable[..., Any]:
    answers = iter([OSError(errno.ESTALE, "Stale file handle")])

    def attempt(*arguments: Any, **options: Any) -> Any:
        if (error := next(answers, None)) is not None:
            raise error
        return action(*arguments, **options)

    return attempt


def test_an_old_listing_takes_no_switch_back(mounted: Callable[..., MountedStore], clock: Clock) -> None:
    own, other, reader = mounted(), mounted(), PointerReader()
    create_index(own)
    for index_id in ("v2", "v3"):
        IndexDirectory.create(own, index_id, IndexDirectory.open(own).description)
    name_current(own, "v2", after=1)
    assert reader.read(own).index_id == "v2"
    other.list_names()
    name_current(own, "v3", after=2)
    assert reader.read(own).index_id == "v3"
    assert read_pointer(other).index_id == "v2", "another frontend of the store"
    assert reader.read(other).index_id == "v3"
    clock.now += SECONDS
    name_former(other)
    assert reader.read(other).index_id == "v2"


def test_a_root_that_was_replaced_takes_a_switch_back(tmp_path: Path) -> None:
    top, reader = LocalShardStore(tmp_path), PointerReader()
    create_index(top)
    IndexDirectory.create(top, "v2", IndexDirectory.open(top).description)
    name_current(top, "v2", after=1)
    assert reader.read(top).index_id == "v2"
    (tmp_path / "current-2.json").unlink()
    assert reader.read(top).index_id == "main"
