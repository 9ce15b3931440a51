"""`cliptide snapshot backup` and `restore` where the index, the backup or both lie in a bucket."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cliptide.snapshot.restore as restore_module
from clip_index.errors import CommitUnknown, DamagedFile, IndexMissing, IndexRefused
from clip_index.generations.history import list_generations
from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import RESTORING, IndexDirectory
from clip_index.indexes.recorded_model import RecordedModel, read_model, record_model
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot, ObjectRoot, open_root
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from cliptide.__main__ import main
from cliptide.snapshot.backup import back_up, open_backup
from cliptide.snapshot.restore import restore_in_bucket
from fakes.faulty_bucket import Fault, FaultyBucket
from fakes.hash_encoder import HashEncoder
from fakes.inline_merges import InlineLanes
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, create_index, description, fingerprint, take_over

_NUM_SHARDS = 2


@dataclass(frozen=True, slots=True)
class Places:
    """Makes roots of one test. `name` is that of a bucket in memory or of a directory."""

    directory: Path

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def make(self, kind: str, name: str) -> IndexRoot:
        if kind == "directory":
            return self.directory / name
        return ObjectRoot(f"memory://{self.directory.name}-{name}", self.cache)

    def run(self, command: str, place: IndexRoot, root: IndexRoot, *words: str) -> Result:
        return self.run_on(root, command, str(place), *words)

    def run_on(self, root: IndexRoot, *words: str) -> Result:
        options = ["--index-root", str(root), "--index-cache-dir", str(self.cache)]
        return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["snapshot", *words, *options])


def contents_of(root: IndexRoot, index_id: str | None = None) -> list[set[str]]:
    """Return the ids of the live contents of each shard."""
    reader = IndexReader(root, index_id, fingerprint())
    reader.reload()
    assert reader.searcher is not None
    return [
        {content_id for n in range(30) if reader.searcher.find(content_id := f"{shard}:{n}") is not None}
        for shard in sorted(reader.searcher.shards)
    ]


def expected(*numbers: int) -> list[set[str]]:
    return [{f"content-uploads-{shard}:{n}" for n in range(num)} for shard, num in enumerate(numbers)]


def fill(writer: ShardWriter, num_contents: int) -> None:
    for _ in range(num_contents):
        add(writer, [content(f"{writer.shard}:{writer.next_offset}", writer.next_offset)])
        writer.commit()


def begin(root: IndexRoot, *numbers: int) -> list[ShardWriter]:
    if isinstance(root, Path):
        root.mkdir(exist_ok=True)
    index = create_index(root, num_partitions=_NUM_SHARDS)
    writers = [take_over(index, partition) for partition in range(_NUM_SHARDS)]
    for writer, num_contents in zip(writers, numbers or (3, 2), strict=True):
        fill(writer, num_contents)
    return writers


def text_of(result: Result) -> str:
    return f"{result.output} {result.exception}"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def root(places: Places) -> IndexRoot:
    return places.make("bucket", "index")


@pytest.fixture
def saved(places: Places) -> IndexRoot:
    return places.make("bucket", "saved")


@pytest.fixture
def writers(root: IndexRoot) -> Iterator[list[ShardWriter]]:
    writers = begin(root)
    yield writers
    for writer in writers:
        writer.close()


@pytest.fixture
def backed_up(places: Places, root: IndexRoot, saved: IndexRoot, writers: list[ShardWriter]) -> IndexRoot:
    assert (result := places.run("backup", saved, root)).exit_code == 0, text_of(result)
    return saved


WAYS = [way for way in itertools.product(("directory", "bucket"), repeat=3) if "bucket" in way]


@pytest.mark.parametrize(("index", "backup", "restored"), WAYS, ids=[" to ".join(way) for way in WAYS])
def test_an_index_comes_back_from_any_root_through_any_root_into_any_root(
    places: Places, index: str, backup: str, restored: str
) -> None:
    root, saved = places.make(index, "index"), places.make(backup, "saved")
    for writer in begin(root):
        writer.close()
    assert (result := places.run("backup", saved, root)).exit_code == 0, text_of(result)
    assert contents_of(saved) == expected(3, 2)
    new = places.make(restored, "new")
    assert (result := places.run("restore", saved, new)).exit_code == 0, text_of(result)
    assert "--accept-rewind" in result.output
    assert contents_of(new) == expected(3, 2)
    writer = take_over(create_index(new, num_partitions=_NUM_SHARDS))
    fill(writer, 1)
    writer.close()
    assert contents_of(new) == expected(4, 2)


def test_canaries_and_model_come_along(
    places: Places, root: IndexRoot, saved: IndexRoot, writers: list[ShardWriter]
) -> None:
    store, model = IndexDirectory.open(root).store, RecordedModel("/models/tuned")
    ensure_canaries(store, HashEncoder())
    record_model(store, model)
    assert places.run("backup", saved, root).exit_code == 0
    new = places.make("bucket", "new")
    assert places.run("restore", saved, new).exit_code == 0
    restored = IndexDirectory.open(new).store
    assert restored.read("canaries.json") == store.read("canaries.json")
    assert read_model(restored) == model


def test_a_second_backup_copies_what_is_new_and_forgets_what_is_old(
    places: Places, root: IndexRoot, backed_up: IndexRoot, writers: list[ShardWriter]
) -> None:
    fill(writers[1], 1)
    result = places.run("backup", backed_up, root, "--json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[0]["num_bytes"] == 0
    assert told[1]["num_bytes"] == writers[1].manifest.segments[-1].size_bytes
    assert contents_of(backed_up) == expected(3, 3)
    assert list_generations(IndexDirectory.open(backed_up).shard_store(1)) == [writers[1].generation]


def test_a_damaged_object_of_a_backup_is_copied_again(
    places: Places, root: IndexRoot, backed_up: IndexRoot, writers: list[ShardWriter]
) -> None:
    name = writers[0].manifest.segments[0].stored_name
    copy = IndexDirectory.open(backed_up).shard_store(0)
    good = copy.read(name)
    copy.replace(name, b"x" * len(good))
    assert places.run("backup", backed_up, root).exit_code == 0
    assert copy.read(name) == good


def test_a_damaged_object_of_the_index_is_refused_and_named(
    places: Places, root: IndexRoot, saved: IndexRoot, writers: list[ShardWriter]
) -> None:
    store, name = writers[0].store, writers[0].manifest.segments[0].stored_name
    store.forget_copy(store.local_file(name))
    store.replace(name, b"x" * len(store.read(name)))
    result = places.run("backup", saved, root)
    assert result.exit_code != 0
    assert store.address_of(name) in text_of(result)


def test_a_damaged_copy_on_this_machine_is_fetched_again_for_a_backup(
    places: Places, root: IndexRoot, saved: IndexRoot, writers: list[ShardWriter]
) -> None:
    path = writers[0].store.local_file(writers[0].manifest.segments[0].stored_name)
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    assert places.run("backup", saved, root).exit_code == 0
    assert contents_of(saved) == expected(3, 2)


@pytest.mark.parametrize("name", ["index", "index/backups"])
def test_a_backup_and_the_index_never_lie_in_each_other(
    places: Places, root: IndexRoot, writers: list[ShardWriter], name: str
) -> None:
    result = places.run("backup", places.make("bucket", name), root)
    assert result.exit_code != 0
    assert "must not lie in each other" in text_of(result)


def test_a_prefix_that_holds_something_else_is_left_alone(
    places: Places, root: IndexRoot, saved: IndexRoot, writers: list[ShardWriter]
) -> None:
    top = open_root(saved)
    top.put({"letters.txt": b"dear"})
    result = places.run("backup", saved, root)
    assert "neither empty nor a backup" in text_of(result)
    assert top.list_names() == ["letters.txt"]


def test_a_prefix_without_a_backup_is_not_restored(
    places: Places, root: IndexRoot, writers: list[ShardWriter]
) -> None:
    result = places.run("restore", root, places.make("bucket", "new"))
    assert result.exit_code != 0
    assert "is not a backup" in text_of(result)


def test_in_a_bucket_no_index_is_replaced(
    places: Places, root: IndexRoot, backed_up: IndexRoot, writers: list[ShardWriter]
) -> None:
    fill(writers[0], 1)
    for words, told in (((), "restore into another prefix"), (("--replace",), "nothing can be moved")):
        result = places.run("restore", backed_up, root, *words)
        assert result.exit_code != 0
        assert told in text_of(result)
    assert contents_of(root) == expected(4, 2)


def test_the_index_that_serves_stays_the_one_beside_a_restored_one(
    places: Places, backed_up: IndexRoot
) -> None:
    new = places.make("bucket", "new")
    IndexDirectory.create(new, "other", description())
    assert places.run("restore", backed_up, new).exit_code == 0
    assert IndexDirectory.open(new).index_id == "other"
    assert IndexDirectory.open(new, "main").description.num_partitions == _NUM_SHARDS


def has_index(root: IndexRoot) -> bool:
    try:
        IndexDirectory.open(root, "main")
    except IndexMissing:
        return False
    return True


def test_half_a_restore_is_never_taken_for_an_index_and_can_be_finished(tmp_path: Path) -> None:
    """A restore is cut off at each of its requests in turn."""
    source = tmp_path / "index"
    for writer in begin(source, 1, 1):
        writer.close()
    assert list(back_up(IndexDirectory.open(source), source, tmp_path / "saved"))
    backup, num_cut_off = open_backup(tmp_path / "saved"), 0
    for number in itertools.count(1):
        bucket = memory_bucket()
        faulty = FaultyBucket(bucket, number, Fault.NOT_DONE)
        try:
            list(restore_in_bucket(backup, object_store(faulty, "root", tmp_path / f"cut-{number}")))
            if not faulty.has_failed:
                break
            continue  # the request was repeated
        except (OSError, CommitUnknown):
            num_cut_off += 1
        root = object_store(bucket, "root", tmp_path / f"after-{number}")
        if has_index(root):
            assert contents_of(root, "main") == expected(1, 1)
        elif root.list_names("indexes/main"):
            with pytest.raises(IndexRefused, match="restore"):
                create_index(root, num_partitions=_NUM_SHARDS)
        list(restore_in_bucket(backup, root))
        assert contents_of(root) == expected(1, 1)
        assert not root.exists(f"indexes/main/{RESTORING}")
    assert num_cut_off > 10


def test_a_restore_that_was_cut_off_keeps_the_files_that_are_there(
    places: Places, backed_up: IndexRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "the machine is gone")

    new = places.make("bucket", "new")
    monkeypatch.setattr(restore_module, "link_manifest", fail)
    assert places.run("restore", backed_up, new).exit_code != 0
    monkeypatch.undo()
    result = places.run("restore", backed_up, new, "--json")
    assert [json.loads(line)["num_bytes"] for line in result.stdout.splitlines()] == [0, 0]
    assert contents_of(new) == expected(3, 2)


def test_a_consumer_that_still_writes_where_an_index_is_restored_is_noticed(
    places: Places, backed_up: IndexRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has removed the index, and forgotten its consumer."""
    new = places.make("bucket", "new")
    forgotten = begin(new)
    for name in open_root(new).list_names():
        open_root(new).remove(name)

    def copy_slowly(*arguments: object) -> object:
        forgotten[0].renew_watermark(1)
        return copy_newest(*arguments)

    copy_newest: Callable[..., object] = restore_module.copy_newest
    monkeypatch.setattr(restore_module, "copy_newest", copy_slowly)
    result = places.run("restore", backed_up, new)
    assert "a consumer writes there" in text_of(result)
    assert not has_index(new)


def test_a_backup_that_was_not_completed_is_not_restored(
    places: Places, root: IndexRoot, saved: IndexRoot, writers: list[ShardWriter]
) -> None:
    name = writers[1].manifest.segments[0].stored_name
    writers[1].store.remove(name)
    assert places.run("backup", saved, root).exit_code != 0
    result = places.run("restore", saved, places.make("bucket", "new"))
    assert "was not completed" in text_of(result)


def test_a_backup_of_a_bucket_holds_what_its_offset_says_while_segments_are_merged_and_collected(
    places: Places, root: IndexRoot, saved: IndexRoot
) -> None:
    lanes, settings = InlineLanes(), WriterSettings(0.0, 0.0, MergeSettings(2, max_dead_share=1.0))
    lanes.release(is_released=True)
    writer = take_over(create_index(root), settings=settings, lanes=lanes)
    fill(writer, 4)
    copying = back_up(IndexDirectory.open(root), root, saved)
    for _ in range(5):
        fill(writer, 2)
        writer.maintain()
    [copied] = copying
    writer.close()
    assert contents_of(saved) == expected(copied.next_offset)


def test_a_damaged_backup_is_not_restored(
    places: Places, backed_up: IndexRoot, writers: list[ShardWriter]
) -> None:
    name = writers[0].manifest.segments[0].stored_name
    copy = IndexDirectory.open(backed_up).shard_store(0)
    copy.replace(name, b"x" * len(copy.read(name)))
    new = places.make("bucket", "new")
    result = places.run("restore", backed_up, new)
    assert isinstance(result.exception, DamagedFile) or "expected" in text_of(result)
    assert not has_index(new)


def test_a_restoration_that_lacks_only_its_last_step_is_finished(
    places: Places, backed_up: IndexRoot
) -> None:
    new = places.make("bucket", "new")
    assert places.run("restore", backed_up, new).exit_code == 0
    store = open_root(new).below("indexes/main")
    store.put({RESTORING: b"{}"})
    result = places.run("restore", backed_up, new)
    assert result.exit_code == 0, text_of(result)
    assert contents_of(new) == expected(3, 2)
    assert not store.exists(RESTORING)


@pytest.mark.parametrize("who", ["another backup", "a consumer"])
def test_an_index_that_has_gone_on_since_its_restoration_is_not_taken_for_the_backup(
    places: Places, root: IndexRoot, backed_up: IndexRoot, writers: list[ShardWriter], who: str
) -> None:
    """The restoration was cut off before its last step, and the command said that all was well."""
    new = places.make("bucket", "new")
    assert places.run("restore", backed_up, new).exit_code == 0
    if who == "a consumer":
        writer = take_over(IndexDirectory.open(new))
        fill(writer, 1)
        writer.close()
    else:
        fill(writers[0], 1)
        assert places.run("backup", backed_up, root).exit_code == 0
    before = contents_of(new)
    open_root(new).below("indexes/main").put({RESTORING: b"{}"})
    result = places.run("restore", backed_up, new)
    assert result.exit_code != 0
    assert "restore into another prefix" in text_of(result)
    assert contents_of(new) == before


@pytest.mark.parametrize("fault", [Fault.NOT_DONE, Fault.DONE_THEN_UNAVAILABLE])
def test_a_backup_that_is_cut_off_at_any_request_leaves_the_former_one_or_its_own_shards(
    tmp_path: Path, fault: Fault
) -> None:
    """The second backup is of an index that was built again, with other commits of the same numbers."""
    former, again = tmp_path / "former", tmp_path / "again"
    for writer in [*begin(former, 1, 1), *begin(again, 2, 1)]:
        writer.close()
    num_cut_off = 0
    for number in itertools.count(1):
        bucket = memory_bucket()
        root = object_store(bucket, "root", tmp_path / f"saved-{number}")
        assert list(back_up(IndexDirectory.open(former), former, root))
        faulty = FaultyBucket(bucket, number, fault)
        try:
            list(
                back_up(
                    IndexDirectory.open(again),
                    again,
                    object_store(faulty, "root", tmp_path / f"cut-{number}"),
                )
            )
            if not faulty.has_failed:
                break
        except OSError:
            num_cut_off += 1
        assert contents_of(root) in (expected(1, 1), expected(2, 1))
        assert open_backup(root).partitions
        assert list(back_up(IndexDirectory.open(again), again, root))
        assert contents_of(root) == expected(2, 1)
        numbers = [list_generations(open_backup(root).shard_store(n)) for n in range(_NUM_SHARDS)]
        assert [len(one) for one in numbers] == [1, 1]
    assert num_cut_off > 10
