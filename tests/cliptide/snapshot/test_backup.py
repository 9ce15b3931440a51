"""`cliptide snapshot backup` and `restore`: what an operator can rely on, also while contents arrive."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cliptide.snapshot.backup as backup_module
from clip_index.errors import Fenced, IndexRefused
from clip_index.generations.history import GenerationTaken, list_generations, manifest_name, read_newest
from clip_index.generations.inspection import Inspection
from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.recorded_model import RecordedModel, read_model, record_model
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import UNFINISHED_PREFIX
from clip_index.writing.merge_worker import MergeFailed
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from cliptide.__main__ import main
from cliptide.snapshot.backup import back_up, open_backup
from cliptide.snapshot.restore import restore
from fakes.hash_encoder import HashEncoder
from fakes.shards import add, content, create_index, fingerprint, path_of, take_over


def run(root: Path, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["snapshot", *words, "--index-root", str(root)])


def text_of(result: Result) -> str:
    return f"{result.output} {result.exception}"


def contents_of(root: Path) -> dict[str, set[str]]:
    """Return the ids of all contents in each shard, as a query service reads them."""
    reader = IndexReader(root, None, fingerprint())
    reader.reload()
    searcher = reader.searcher
    assert searcher is not None
    found: dict[str, set[str]] = {}
    for name, shard in searcher.shards.items():
        ids = (f"{name}:{offset}" for offset in range(shard.next_offset))
        found[name] = {content_id for content_id in ids if searcher.find(content_id) is not None}
    return found


def fill(writer: ShardWriter, num_contents: int) -> None:
    for _ in range(num_contents):
        add(writer, [content(f"{writer.shard}:{writer.next_offset}", writer.next_offset)])
        writer.commit()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "saved"


@pytest.fixture
def writers(root: Path) -> Iterator[list[ShardWriter]]:
    root.mkdir()
    index = create_index(root, num_partitions=2)
    writers = [take_over(index, partition) for partition in range(2)]
    for writer, num_contents in zip(writers, (3, 2), strict=True):
        fill(writer, num_contents)
    yield writers
    for writer in writers:
        writer.close()


@pytest.fixture
def backed_up(root: Path, saved: Path, writers: list[ShardWriter]) -> Path:
    result = run(root, "backup", saved)
    assert result.exit_code == 0, result.output
    return saved


def expected(*numbers: int) -> dict[str, set[str]]:
    shards = {f"content-uploads-{shard}": num for shard, num in enumerate(numbers)}
    return {name: {f"{name}:{offset}" for offset in range(num)} for name, num in shards.items()}


def test_a_backup_is_an_index_of_its_own(root: Path, backed_up: Path) -> None:
    assert contents_of(backed_up) == expected(3, 2)
    assert run(backed_up, "list").exit_code == 0


def test_a_backup_says_what_it_holds(root: Path, saved: Path, writers: list[ShardWriter]) -> None:
    told = [json.loads(line) for line in run(root, "backup", saved, "--json").stdout.splitlines()]
    assert [(one["shard"], one["num_contents"], one["next_offset"]) for one in told] == [
        ("content-uploads-0", 3, 3),
        ("content-uploads-1", 2, 2),
    ]
    assert all(one["num_bytes"] > 0 for one in told)


def test_a_second_backup_copies_what_is_new_and_forgets_what_is_old(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    fill(writers[1], 1)
    told = [json.loads(line) for line in run(root, "backup", backed_up, "--json").stdout.splitlines()]
    assert told[0]["num_bytes"] == 0
    assert told[1]["num_bytes"] > 0
    assert contents_of(backed_up) == expected(3, 3)
    shard = IndexDirectory.open(backed_up).shard_store(1)
    assert list_generations(shard) == [writers[1].generation]


def test_the_canaries_are_backed_up_and_restored_as_they_are(
    root: Path, saved: Path, tmp_path: Path, writers: list[ShardWriter]
) -> None:
    source = IndexDirectory.open(root).path / "canaries.json"
    for encoder in (HashEncoder(), HashEncoder(seed=1)):  # the second time an operator has accepted another
        source.unlink(missing_ok=True)
        ensure_canaries(IndexDirectory.open(root).store, encoder)
        assert run(root, "backup", saved).exit_code == 0
        assert (IndexDirectory.open(saved).path / "canaries.json").read_bytes() == source.read_bytes()
    restored = tmp_path / "restored"
    assert run(restored, "restore", saved).exit_code == 0
    assert (IndexDirectory.open(restored).path / "canaries.json").read_bytes() == source.read_bytes()


def test_a_damaged_file_of_a_backup_is_copied_again(root: Path, backed_up: Path) -> None:
    segment = next(backed_up.glob("indexes/main/content-uploads-0/segments/*.pack"))
    segment.chmod(0o644)
    segment.write_bytes(b"x" * segment.stat().st_size)
    assert run(root, "backup", backed_up).exit_code == 0
    assert contents_of(backed_up) == expected(3, 2)


def test_a_backup_of_a_damaged_index_is_refused_and_names_the_file(
    root: Path, saved: Path, writers: list[ShardWriter]
) -> None:
    segment = next(path_of(writers[0]).glob("segments/*.pack"))
    segment.chmod(0o644)
    segment.write_bytes(b"x" * segment.stat().st_size)
    result = run(root, "backup", saved)
    assert result.exit_code != 0
    assert str(segment) in str(result.output) + str(result.exception)


def test_a_missing_file_is_damage_and_no_reason_to_try_for_ever(
    root: Path, saved: Path, writers: list[ShardWriter]
) -> None:
    next(path_of(writers[0]).glob("segments/*.pack")).unlink()
    result = run(root, "backup", saved)
    assert result.exit_code != 0
    assert "it is missing" in str(result.output) + str(result.exception)


WRONG_TARGETS: dict[str, Callable[[Path], Path]] = {
    "the root itself": lambda root: root,
    "a folder of the root": lambda root: root / "backups",
    "what holds the root": lambda root: root.parent,
}


@pytest.mark.parametrize("target", WRONG_TARGETS.values(), ids=WRONG_TARGETS)
def test_a_backup_and_the_index_never_lie_in_each_other(
    target: Callable[[Path], Path], root: Path, writers: list[ShardWriter]
) -> None:
    result = run(root, "backup", target(root))
    assert result.exit_code != 0
    assert "must not lie in each other" in str(result.output) + str(result.exception)


def test_a_directory_that_holds_something_else_is_left_alone(
    root: Path, saved: Path, writers: list[ShardWriter]
) -> None:
    saved.mkdir()
    (saved / "letters.txt").write_text("dear")
    result = run(root, "backup", saved)
    assert result.exit_code != 0
    assert "neither empty nor a backup" in str(result.output) + str(result.exception)
    assert os.listdir(saved) == ["letters.txt"]


def test_a_backup_that_was_not_completed_is_not_restored(
    root: Path, saved: Path, tmp_path: Path, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_module, "copy_files", fail)
    assert "No space left" in run(root, "backup", saved).output
    monkeypatch.undo()
    result = run(tmp_path / "new", "restore", saved)
    assert "was not completed" in str(result.output) + str(result.exception)
    assert run(root, "backup", saved).exit_code == 0
    assert run(tmp_path / "new", "restore", saved).exit_code == 0


def test_a_former_backup_stays_complete_while_the_next_one_fails(
    root: Path, backed_up: Path, tmp_path: Path, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(writers[0], 1)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_module, "copy_files", fail)
    assert run(root, "backup", backed_up).exit_code != 0
    monkeypatch.undo()
    assert run(tmp_path / "new", "restore", backed_up).exit_code == 0
    assert contents_of(tmp_path / "new") == expected(3, 2)


def test_a_backup_is_restored_on_an_empty_machine(tmp_path: Path, backed_up: Path) -> None:
    new = tmp_path / "new" / "root"
    result = run(new, "restore", backed_up)
    assert result.exit_code == 0, result.output
    assert "--accept-rewind" in result.output
    assert contents_of(new) == expected(3, 2)
    writer = take_over(IndexDirectory.open(new))
    assert writer.next_offset == 3
    fill(writer, 1)
    writer.close()
    assert contents_of(new) == expected(4, 2)


def test_an_index_is_replaced_only_on_demand_and_is_kept(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    fill(writers[0], 2)
    refused = run(root, "restore", backed_up)
    assert refused.exit_code != 0
    assert "--replace" in refused.output
    assert contents_of(root) == expected(5, 2)
    result = run(root, "restore", backed_up, "--replace")
    assert result.exit_code == 0, result.output
    assert contents_of(root) == expected(3, 2)
    kept = root / "replaced-main-1"
    assert str(kept) in result.output
    assert (kept / "content-uploads-0" / manifest_name(writers[0].generation)).exists()


def test_a_restored_index_fences_a_consumer_that_still_runs(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    fill(writers[0], 2)
    assert run(root, "restore", backed_up, "--replace").exit_code == 0
    add(writers[0], [content("late", writers[0].next_offset)])
    with pytest.raises((Fenced, GenerationTaken)):
        writers[0].commit()
    assert contents_of(root) == expected(3, 2)


def test_a_query_service_that_runs_goes_on_with_the_restored_index(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    fill(writers[0], 2)
    reader = IndexReader(root, None, fingerprint())
    reader.reload()
    assert run(root, "restore", backed_up, "--replace").exit_code == 0
    assert reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.shards["content-uploads-0"].next_offset == 3


def test_a_running_consumer_is_not_replaced_unasked(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    writers[1].renew_watermark(1)
    result = run(root, "restore", backed_up, "--replace")
    assert result.exit_code != 0
    assert "--while-running" in result.output
    assert run(root, "restore", backed_up, "--replace", "--while-running").exit_code == 0


def test_a_damaged_backup_is_not_restored_and_the_index_stays(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    segment = next(backed_up.glob("indexes/main/content-uploads-1/segments/*.pack"))
    segment.chmod(0o644)
    segment.write_bytes(b"x" * segment.stat().st_size)
    result = run(root, "restore", backed_up, "--replace")
    assert result.exit_code != 0
    assert str(segment) in str(result.output) + str(result.exception)
    assert contents_of(root) == expected(3, 2)


def test_what_is_no_backup_is_not_restored(root: Path, tmp_path: Path, writers: list[ShardWriter]) -> None:
    result = run(tmp_path / "new", "restore", root)
    assert "is not a backup" in str(result.output) + str(result.exception)
    assert not (tmp_path / "new").exists()


def test_a_backup_under_ingest_holds_exactly_what_its_offset_says(
    root: Path, saved: Path, tmp_path: Path
) -> None:
    """Contents arrive, segments are merged and garbage is collected at once, again and again, meanwhile."""
    root.mkdir()
    writer = take_over(
        create_index(root), settings=WriterSettings(retain_for_seconds=0.0, collect_every_seconds=0.0)
    )
    fill(writer, 1)
    is_over = threading.Event()

    def ingest() -> None:
        while not is_over.is_set() and writer.next_offset < 400:
            fill(writer, 1)
            with contextlib.suppress(MergeFailed):  # its sources were collected: tried again, as ever
                writer.maintain()

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        for number in range(3):
            result = run(root, "backup", saved)
            assert result.exit_code == 0, result.output
            restored = tmp_path / f"restored-{number}"
            assert run(restored, "restore", saved).exit_code == 0
            manifest = read_newest(IndexDirectory.open(restored).shard_store(0))
            assert manifest is not None
            assert contents_of(restored) == expected(manifest.next_offset)
    finally:
        is_over.set()
        thread.join()
        writer.close()


def test_a_consumer_that_commits_during_a_restoration_is_fenced_by_it(
    root: Path, backed_up: Path, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_files = backup_module.copy_files

    def copy_slowly(*arguments: Any) -> int:
        fill(writers[0], 5)
        return copy_files(*arguments)

    monkeypatch.setattr(backup_module, "copy_files", copy_slowly)
    result = run(root, "restore", backed_up, "--replace", "--while-running", "--json")
    assert result.exit_code == 0, result.output
    add(writers[0], [content("late", writers[0].next_offset)])
    with pytest.raises((Fenced, GenerationTaken)):
        writers[0].commit()
    assert contents_of(root) == expected(3, 2)
    told = {one["shard"]: one["generation"] for one in map(json.loads, result.stdout.splitlines())}
    index = IndexDirectory.open(root)
    assert {s.name: list_generations(s)[-1] for s in map(index.shard_store, range(2))} == told


def test_a_copy_that_a_kill_cut_off_is_made_again(root: Path, backed_up: Path) -> None:
    """It may be read-only already, so that it cannot be overwritten."""
    file = next(backed_up.glob("indexes/main/content-uploads-0/segments/*.pack"))
    unfinished = file.rename(file.with_name(f"{UNFINISHED_PREFIX}{file.name}"))
    kept = os.open(unfinished, os.O_RDONLY)  # so that its number is not used again
    assert run(root, "backup", backed_up).exit_code == 0
    assert os.fstat(kept).st_nlink == 0
    os.close(kept)
    assert contents_of(backed_up) == expected(3, 2)


def test_a_backup_and_a_restored_index_know_the_model_that_the_index_was_begun_with(
    root: Path, saved: Path, writers: list[ShardWriter], tmp_path: Path
) -> None:
    model = RecordedModel("/models/tuned")
    record_model(IndexDirectory.open(root).store, model)
    assert run(root, "backup", str(saved)).exit_code == 0
    assert read_model(IndexDirectory.open(saved).store) == model
    assert run(tmp_path / "elsewhere", "restore", str(saved)).exit_code == 0
    assert read_model(IndexDirectory.open(tmp_path / "elsewhere").store) == model


def test_a_place_in_which_a_kill_cut_the_first_backup_off_is_still_a_place_for_it(
    root: Path, saved: Path, writers: list[ShardWriter]
) -> None:
    saved.mkdir()
    (saved / f"{UNFINISHED_PREFIX}backup.json-0").write_bytes(b"{")
    result = run(root, "backup", saved)
    assert result.exit_code == 0, text_of(result)
    assert contents_of(saved) == expected(3, 2)


def test_a_restoration_that_fails_leaves_nothing_behind(
    tmp_path: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    """On a disk that was too small it would stay full."""
    segment = next(backed_up.glob("indexes/main/content-uploads-1/segments/*.pack"))
    segment.chmod(0o644)
    segment.write_bytes(b"x" * segment.stat().st_size)
    assert run(tmp_path / "new", "restore", backed_up).exit_code != 0
    assert os.listdir(tmp_path / "new" / "indexes") == []


def test_what_a_killed_restoration_has_copied_is_removed_by_the_next_one(
    tmp_path: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    """What another one copies now stays."""
    new = tmp_path / "new"
    abandoned = new / "indexes" / f"{UNFINISHED_PREFIX}restore-0"
    (abandoned / "content-uploads-0").mkdir(parents=True)
    backup = open_backup(backed_up)
    other = restore(backup, new, None)
    next(other)
    assert not abandoned.exists()
    assert run(new, "restore", backed_up).exit_code == 0
    assert contents_of(new) == expected(3, 2)
    with pytest.raises(IndexRefused, match="meanwhile"):
        list(other)
    assert os.listdir(new / "indexes") == ["main"]
    assert contents_of(new) == expected(3, 2)


def test_a_consumer_that_begins_an_index_during_a_restoration_is_named(
    tmp_path: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    new = tmp_path / "new"
    restoring = restore(open_backup(backed_up), new, None)
    next(restoring)
    create_index(new, num_partitions=2)
    with pytest.raises(IndexRefused, match="meanwhile"):
        list(restoring)


def begin_again_behind(root: Path, generation: int) -> None:
    """Build the index again, until its first shard has a generation of this number."""
    shutil.rmtree(root)
    root.mkdir()
    writer = take_over(create_index(root, num_partitions=2))
    add(writer, [content(f"{writer.shard}:0", 0)])
    while writer.generation < generation:
        add(writer, [content("again", writer.next_offset)])
        writer.commit()
    writer.close()


def test_a_former_backup_keeps_its_shard_while_another_commit_of_its_number_replaces_it(
    root: Path, backed_up: Path, writers: list[ShardWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle must not leave a shard without a manifest: restored, it would be empty."""
    generation = writers[0].generation
    begin_again_behind(root, generation)

    def fail(*_: object) -> None:
        raise OSError(5, "killed")

    for name in ("ensure", "renew"):
        monkeypatch.setattr(LocalShardStore, name, fail_for(generation, getattr(LocalShardStore, name), fail))
    assert run(root, "backup", backed_up).exit_code != 0
    monkeypatch.undo()
    shard = IndexDirectory.open(backed_up).shard_store(0)
    assert list_generations(shard) == [generation]


def fail_for(
    generation: int, act: Callable[..., None], fail: Callable[..., None]
) -> Callable[[Any, str, bytes], None]:
    def call(store: Any, name: str, data: bytes) -> None:
        return fail() if name == manifest_name(generation) else act(store, name, data)

    return call


def test_of_two_backups_into_one_place_the_later_one_wins_and_is_whole(
    root: Path, backed_up: Path, writers: list[ShardWriter]
) -> None:
    index = IndexDirectory.open(root)
    fill(writers[0], 1)
    early = back_up(index, root, backed_up)
    next(early)
    fill(writers[0], 1)
    fill(writers[1], 1)
    assert run(root, "backup", backed_up).exit_code == 0
    with pytest.raises(IndexRefused, match="another backup"):
        list(early)
    assert contents_of(backed_up) == expected(5, 3)
    backup = open_backup(backed_up)
    for shard in map(backup.shard_store, range(2)):
        assert next(iter(Inspection(shard).newest_first())).damage is None
