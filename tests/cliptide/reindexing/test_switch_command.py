"""`cliptide switch` and `cliptide rollback`: what they refuse, and what they move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import name_current, newest_number, read_pointer
from clip_index.storage.index_roots import IndexRoot, ObjectRoot, open_root
from clip_index.writing.shard_writer import ShardWriter
from cliptide.__main__ import main
from cliptide.reindexing.switch_checks import CatchUp
from fakes.shards import add, content, description, take_over
from fakes.stored_damage import flip_a_bit, newest_pack, rewrite
from tests.cliptide.stub_query_service import StubQueryService

PARTITIONS = 2


@pytest.fixture(params=["directory", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> IndexRoot:
    """An empty root that commands can be told of."""
    if request.param == "directory":
        return tmp_path
    return ObjectRoot(f"memory://{tmp_path.name}", tmp_path / "cache")


def run(root: IndexRoot, *words: str) -> Result:
    options = ["--index-root", str(root)]
    if isinstance(root, ObjectRoot):
        options += ["--index-cache-dir", str(root.cache_directory)]
    arguments = [words[0], *options, *words[1:]]
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)


def served_by(root: IndexRoot) -> str:
    return read_pointer(open_root(root)).index_id


@pytest.fixture
def writers(root: IndexRoot) -> Iterator[dict[str, list[ShardWriter]]]:
    """The indexes main and v2, of two shards each, with the same three offsets in each shard."""
    opened = {}
    for index_id in ("main", "v2"):
        about = description(num_partitions=PARTITIONS, group_id=f"cliptide-{index_id}")
        index = IndexDirectory.create(root, index_id, about)
        opened[index_id] = [take_over(index, partition) for partition in range(PARTITIONS)]
        for writer in opened[index_id]:
            add(writer, [content(f"{writer.shard}-{n}", n) for n in range(3)])
            writer.commit()
    yield opened
    for group in opened.values():
        for writer in group:
            writer.close()


def upload(writer: ShardWriter, content_id: str) -> None:
    add(writer, [content(content_id, writer.next_offset)])
    writer.commit()


def test_an_index_that_has_caught_up_serves(root: IndexRoot, writers: Any) -> None:
    result = run(root, "switch", "v2")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "index": "v2",
        "former": "main",
        "changed": True,
        "pointer": 2,
        "services": 0,
        "not_following": 0,
    }
    assert served_by(root) == "v2"


def test_a_second_switch_to_the_same_index_changes_nothing(root: IndexRoot, writers: Any) -> None:
    run(root, "switch", "v2")
    again = run(root, "switch", "v2")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["changed"] is False
    assert newest_number(open_root(root)) == 2


def test_a_switch_that_was_killed_while_it_waited_waits_again(
    root: IndexRoot, writers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliptide.reindexing.switch_checks._POLL_SECONDS", 0.001)
    name_current(open_root(root), "v2", after=1)
    with service(("preparing", None), ("served", None)) as good, service(("failed", "no room")) as bad:
        again = run(root, "switch", "v2", "--service", good)
        failed = run(root, "switch", "v2", "--service", bad)
    assert (again.exit_code, failed.exit_code) == (0, 1)
    assert f"{good} serves v2" in again.stderr
    assert f"{bad} cannot serve v2: no room" in failed.stderr
    assert json.loads(again.stdout) == {
        "index": "v2",
        "former": None,
        "changed": False,
        "pointer": 2,
        "services": 1,
        "not_following": 0,
    }
    assert newest_number(open_root(root)) == 2


def test_an_index_that_is_behind_is_refused_with_the_numbers(root: IndexRoot, writers: Any) -> None:
    upload(writers["main"][1], "new")
    upload(writers["main"][1], "newer")
    result = run(root, "switch", "v2", "--wait-seconds", "0")
    assert result.exit_code == 1
    assert "v2 is 2 records behind main (content-uploads-1: 3 of 5)" in result.stderr
    assert served_by(root) == "main"


def test_a_shard_that_nobody_has_owned_is_behind_by_all_of_its_records(root: IndexRoot, writers: Any) -> None:
    about = description(num_partitions=PARTITIONS, group_id="cliptide-v3")
    IndexDirectory.create(root, "v3", about)
    result = run(root, "switch", "v3", "--wait-seconds", "0")
    assert "v3 is 6 records behind main" in result.stderr
    assert "content-uploads-0: nothing of 3" in result.stderr


def test_the_index_is_waited_for_while_its_consumer_catches_up(root: IndexRoot, writers: Any) -> None:
    upload(writers["main"][0], "new")
    index, served = (IndexDirectory.open(root, one) for one in ("v2", "main"))
    CatchUp(60, pause=lambda _: upload(writers["v2"][0], "new")).wait(index, served)


def test_offsets_that_come_during_the_wait_are_not_demanded(root: IndexRoot, writers: Any) -> None:
    """Otherwise a switch would never succeed while uploads come."""
    upload(writers["main"][0], "new")
    index, served = (IndexDirectory.open(root, one) for one in ("v2", "main"))

    def both_go_on(_: float) -> None:
        upload(writers["v2"][0], "new")
        upload(writers["main"][0], "another")

    CatchUp(60, pause=both_go_on).wait(index, served)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"topic": "other"}, "topic 'other' (that of main: 'content-uploads')", id="topic"),
        pytest.param({"topic_id": "new"}, "topic id 'new' (that of main: 'topic-id-1')", id="recreated"),
        pytest.param({"num_partitions": 3}, "number of partitions 3 (that of main: 2)", id="partitions"),
    ],
)
def test_an_index_of_another_log_is_refused(
    root: IndexRoot, writers: Any, changes: dict[str, Any], sentence: str
) -> None:
    about = description(**{"num_partitions": PARTITIONS, "group_id": "cliptide-v3", **changes})
    IndexDirectory.create(root, "v3", about)
    result = run(root, "switch", "v3")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert served_by(root) == "main"


def test_a_damaged_index_is_refused_by_name_with_the_way_on(root: IndexRoot, writers: Any) -> None:
    damaged = writers["v2"][1]
    flip_a_bit(damaged.store, newest_pack(damaged))
    result = run(root, "switch", "v2")
    assert result.exit_code == 1
    assert damaged.store.address_of(newest_pack(damaged)) in result.stderr
    assert "cliptide snapshot repair --index-id v2" in result.stderr
    assert served_by(root) == "main"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(["switch", "nowhere"], "no index 'nowhere'", id="no such index"),
        pytest.param(["switch", "../main"], "must match", id="a path"),
        pytest.param(["switch"], "name the index that is to serve", id="no id"),
        pytest.param(["rollback"], "no index served before main", id="nothing to return to"),
        pytest.param(["switch", "v2", "--service", "localhost"], "does not begin with http", id="address"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    root: IndexRoot, writers: Any, words: list[str], sentence: str
) -> None:
    result = run(root, *words)
    assert result.exit_code in (1, 2)
    assert sentence in " ".join(result.stderr.split())
    assert served_by(root) == "main"


def test_an_index_that_somebody_named_during_the_checks_is_not_overwritten(
    root: IndexRoot, writers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name_another(self: CatchUp, index: IndexDirectory, served: IndexDirectory) -> None:
        name_current(open_root(root), "main", after=1)

    monkeypatch.setattr(CatchUp, "wait", name_another)
    result = run(root, "switch", "v2")
    assert result.exit_code == 1
    assert "another process wrote it meanwhile" in result.stderr
    assert served_by(root) == "main"


def test_a_rollback_names_the_former_index_and_says_what_it_lacks(root: IndexRoot, writers: Any) -> None:
    run(root, "switch", "v2")
    upload(writers["v2"][0], "new")
    result = run(root, "rollback")
    assert result.exit_code == 0
    assert "main is 1 records behind v2" in result.stderr
    assert served_by(root) == "main"
    assert run(root, "rollback").exit_code == 1


def test_a_rollback_does_not_need_the_index_that_it_leaves(root: IndexRoot, writers: Any) -> None:
    run(root, "switch", "v2")
    rewrite(open_root(root), "indexes/v2/index.json", b"")
    assert run(root, "rollback").exit_code == 0
    assert served_by(root) == "main"


def test_the_history_shows_what_has_served(root: IndexRoot, writers: Any) -> None:
    run(root, "switch", "v2")
    run(root, "rollback")
    shown = run(root, "switch", "--list", "--json")
    assert [json.loads(line)["index"] for line in shown.stdout.splitlines()] == ["main", "v2", "main"]
    assert "v2" in run(root, "switch", "--list").stdout


@contextmanager
def service(*states: tuple[str, str | None]) -> Iterator[str]:
    """A query service that answers one after another of these states, and the last one for ever."""
    left = list(states)

    def answer(_: object) -> dict[str, Any]:
        state, reason = left.pop(0) if len(left) > 1 else left[0]
        return {"index_id": "v2", "state": state, "reason": reason}

    with StubQueryService({"GET /v1/indexes/v2": (200, answer)}).serving() as stub:
        yield stub.url


NO_ROOM = "both encoders do not fit into memory: to load the second one takes 600 MiB, and 400 MiB are free"


def test_a_service_that_cannot_hold_both_encoders_is_a_refusal(root: IndexRoot, writers: Any) -> None:
    with service(("possible", None)) as good, service(("impossible", NO_ROOM)) as full:
        result = run(root, "switch", "v2", "--service", good, "--service", full)
    assert result.exit_code == 1
    assert f"the query service at {full} cannot serve v2: {NO_ROOM}" in result.stderr
    assert served_by(root) == "main"


def test_a_service_that_does_not_answer_is_a_refusal(root: IndexRoot, writers: Any) -> None:
    with service(("possible", None)) as address:
        pass
    result = run(root, "switch", "v2", "--service", address)
    assert result.exit_code == 1
    assert f"no answer from the query service at {address}" in result.stderr
    assert served_by(root) == "main"


def test_the_services_are_waited_for(root: IndexRoot, writers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliptide.reindexing.switch_checks._POLL_SECONDS", 0.001)
    states: list[tuple[str, str | None]] = [("possible", None), ("preparing", None), ("served", None)]
    with service(*states) as one, service(*states) as two:
        result = run(root, "switch", "v2", "--service", one, "--service", two)
    assert result.exit_code == 0
    assert f"{one} serves v2" in result.stderr
    assert json.loads(result.stdout)["services"] == 2


def test_a_service_that_does_not_follow_is_told_and_the_way_back_named(root: IndexRoot, writers: Any) -> None:
    with service(("possible", None), ("failed", "the log of the service says why")) as address:
        result = run(root, "switch", "v2", "--service", address)
    assert result.exit_code == 1
    assert f"{address} cannot serve v2: the log of the service says why" in result.stderr
    assert json.loads(result.stdout)["not_following"] == 1
    assert served_by(root) == "v2"
