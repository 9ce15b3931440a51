"""`cliptide snapshot` as an operator meets it; what it commits is tested with the engine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cliptide.snapshot.command
from clip_index.generations.history import GenerationTaken, list_generations, manifest_name
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.writing.shard_writer import ShardWriter
from cliptide.__main__ import main
from fakes.shards import add, content, create_index, path_of, take_over


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[ShardWriter]]:
    """Two shards; each shows a in generation 2, and a and b in generation 3."""
    index = create_index(tmp_path, num_partitions=2)
    writers = [take_over(index, partition) for partition in range(2)]
    for writer in writers:
        for name in "ab":
            add(writer, [content(name, writer.next_offset)])
            writer.commit()
    yield writers
    for writer in writers:
        writer.close()


@pytest.fixture
def damaged(writers: list[ShardWriter]) -> ShardWriter:
    """The second shard's newest manifest is cut short."""
    path = path_of(writers[1]) / manifest_name(3)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:40])
    return writers[1]


def run(root: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["snapshot", *arguments, "--index-root", str(root)])


def answers(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def renew_watermark(writer: ShardWriter, seconds_ago: float) -> None:
    writer.renew_watermark(1)
    path = path_of(writer) / "watermark.json"
    renewed_at = path.stat().st_mtime - seconds_ago
    os.utime(path, (renewed_at, renewed_at))


def test_a_list_shows_every_generation_and_what_is_damaged(tmp_path: Path, damaged: ShardWriter) -> None:
    result = run(tmp_path, "list", "--last", "2", "--json")
    assert result.exit_code == 1
    listed = [(one["shard"], one["generation"], one["next_offset"]) for one in answers(result)]
    names = [("content-uploads-0", 3, 2), ("content-uploads-0", 2, 1)]
    assert listed == [*names, ("content-uploads-1", 3, None), ("content-uploads-1", 2, 1)]
    assert [bool(one["damage"]) for one in answers(result)] == [False, False, True, False]
    table = run(tmp_path, "list", "--partition", "1")
    assert f"generation 3: damaged file {path_of(damaged) / manifest_name(3)}" in table.stdout
    assert "content-uploads-0" not in table.stdout


def test_a_list_of_a_sound_index_exits_with_zero(tmp_path: Path, writers: list[ShardWriter]) -> None:
    assert run(tmp_path, "list").exit_code == 0


def test_a_repair_says_what_it_leaves_behind_and_how_the_consumer_goes_on(
    tmp_path: Path, damaged: ShardWriter
) -> None:
    result = run(tmp_path, "repair")
    assert result.exit_code == 0
    assert "content-uploads-0: the newest generation is good, nothing to do" in result.stdout
    for words in ("generation 4 shows 1 contents", "from generation 2; next offset 1, before unknown"):
        assert words in result.stdout
    assert f"left behind: generation 3: damaged file {path_of(damaged) / manifest_name(3)}" in result.stdout
    assert "--accept-rewind (CLIPTIDE_CONSUMER__ACCEPT_REWIND=true)" in result.stdout
    assert run(tmp_path, "list").exit_code == 0


def test_a_dry_run_changes_nothing(tmp_path: Path, damaged: ShardWriter) -> None:
    result = run(tmp_path, "repair", "--dry-run", "--json")
    assert [one["committed"] for one in answers(result)] == [None, None]
    assert [one["damaged"] for one in answers(result)] == [False, True]
    assert list_generations(damaged.store) == [1, 2, 3]


def test_a_rollback_is_a_new_generation(tmp_path: Path, writers: list[ShardWriter]) -> None:
    result = run(tmp_path, "rollback", "--partition", "0", "--generation", "2", "--json")
    [answer] = answers(result)
    assert (answer["committed"], answer["next_offset"], answer["next_offset_before"]) == (4, 1, 2)
    assert answer["left_segments"] == [writers[0].manifest.segments[1].segment_id]
    assert list_generations(writers[0].store) == [1, 2, 3, 4]
    assert list_generations(writers[1].store) == [1, 2, 3]


def test_a_running_consumer_is_not_fenced_unless_told_so(tmp_path: Path, damaged: ShardWriter) -> None:
    renew_watermark(damaged, seconds_ago=0)
    result = run(tmp_path, "repair")
    assert result.exit_code == 1
    assert "stop it and wait that long, or use --while-running" in result.stderr
    assert list_generations(damaged.store) == [1, 2, 3]
    assert run(tmp_path, "repair", "--while-running").exit_code == 0


def test_a_consumer_that_stopped_a_while_ago_is_in_nobodys_way(tmp_path: Path, damaged: ShardWriter) -> None:
    renew_watermark(damaged, seconds_ago=60)
    assert run(tmp_path, "repair").exit_code == 0


def test_a_shard_can_be_filled_from_the_log_again(tmp_path: Path, writers: list[ShardWriter]) -> None:
    assert run(tmp_path, "repair", "--from-log").exit_code == 2
    result = run(tmp_path, "repair", "--from-log", "--partition", "1", "--json")
    [answer] = answers(result)
    assert (answer["committed"], answer["next_offset"], answer["next_offset_before"]) == (4, 0, 2)


def test_a_plan_that_a_writer_overtook_is_made_again(
    tmp_path: Path, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, num_overtaken = cliptide.snapshot.command.commit_restoration, 0

    def overtaken_once(*arguments: Any, **named: Any) -> Any:
        nonlocal num_overtaken
        if num_overtaken == 0:
            num_overtaken = 1
            add(writers[0], [content("c", 2)])
            writers[0].commit()
            with pytest.raises(GenerationTaken):
                commit(*arguments, **named)
            raise GenerationTaken
        return commit(*arguments, **named)

    monkeypatch.setattr(cliptide.snapshot.command, "commit_restoration", overtaken_once)
    result = run(tmp_path, "rollback", "--partition", "0", "--generation", "2", "--json")
    [answer] = answers(result)
    assert (answer["committed"], answer["next_offset_before"]) == (5, 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["rollback", "--partition", "0", "--generation", "9"], "is not there", id="generation"),
        pytest.param(["rollback", "--partition", "7", "--generation", "1"], "2 partitions", id="partition"),
        pytest.param(["list", "--index-id", "other"], "no index 'other'", id="index"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    tmp_path: Path, writers: list[ShardWriter], arguments: list[str], sentence: str
) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code in (1, 2)
    assert sentence in result.stderr.splitlines()[-1]


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_repair_names_the_serving_index_anew_when_the_file_that_names_it_is_damaged(
    tmp_path: Path, writers: list[ShardWriter]
) -> None:
    overwrite(tmp_path / "current-1.json", b'{"index_id": "ma')
    listed = run(tmp_path, "list")
    assert listed.exit_code == 1
    assert "`cliptide snapshot repair` writes it anew" in listed.stderr
    repaired = run(tmp_path, "repair")
    assert repaired.exit_code == 0
    assert "the index main is named" in repaired.stderr
    assert run(tmp_path, "list").exit_code == 0
    assert IndexDirectory.open(tmp_path).index_id == "main"


def test_a_repair_asks_which_of_several_indexes_serves(tmp_path: Path, writers: list[ShardWriter]) -> None:
    (tmp_path / "indexes" / "other").mkdir()
    overwrite(tmp_path / "current-1.json", b"")
    asked = run(tmp_path, "repair")
    assert asked.exit_code == 1
    assert "main, other: say with --index-id which one serves" in asked.stderr
    assert run(tmp_path, "repair", "--index-id", "nowhere").exit_code == 1
    assert run(tmp_path, "repair", "--index-id", "main").exit_code == 0
    assert IndexDirectory.open(tmp_path).index_id == "main"


@pytest.mark.parametrize("command", ["list", "repair"])
def test_a_damaged_description_of_the_index_names_the_way_on(
    tmp_path: Path, writers: list[ShardWriter], command: str
) -> None:
    description = tmp_path / "indexes" / "main" / "index.json"
    overwrite(description, description.read_bytes()[:-20])
    told = run(tmp_path, command)
    assert told.exit_code == 1
    assert str(description) in told.stderr
    assert "put it back from a backup; or" in told.stderr
    assert "start a consumer, which writes it anew" in told.stderr


def test_a_description_that_was_removed_is_written_anew_and_the_shards_are_there(
    tmp_path: Path, writers: list[ShardWriter]
) -> None:
    (tmp_path / "indexes" / "main" / "index.json").unlink()
    create_index(tmp_path, num_partitions=2)
    assert run(tmp_path, "list").exit_code == 0
