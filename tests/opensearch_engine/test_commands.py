"""The commands over an index in OpenSearch."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cliptide.__main__ import main
from cliptide.demo.child_process import free_port
from cliptide.demo.engine import NoEngine, engine_variables
from cliptide.doctor.findings import Finding
from cliptide.doctor.opensearch_checks import check_opensearch
from consumer.settings import read_settings
from fakes.shards import description
from opensearch_engine.connection import Connection
from opensearch_engine.errors import EngineMissing
from opensearch_engine.index import create_index
from opensearch_engine.reader import OpenSearchReader


@pytest.fixture
def in_opensearch(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv("CLIPTIDE_INDEX__ENGINE", "opensearch")
    monkeypatch.setenv("CLIPTIDE_OPENSEARCH__URL", connection.settings.url)
    return connection


def findings() -> list[Finding]:
    return list(check_opensearch(read_settings()))


def test_the_doctor_says_what_is_there(in_opensearch: Connection, tmp_path: Path) -> None:
    [missing] = findings()
    assert (missing.status, "there is no index main yet" in missing.message) == ("ok", True)
    create_index(in_opensearch, tmp_path, "main", description(num_partitions=2))
    assert [(one.status, one.message) for one in findings()] == [("ok", "main, 2 shards of content-uploads")]


def test_the_doctor_names_what_is_wrong(in_opensearch: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_OPENSEARCH__URL", f"http://127.0.0.1:{free_port()}")
    [away] = findings()
    assert (away.status, away.remedy) == ("failed", "start OpenSearch, or correct CLIPTIDE_OPENSEARCH__URL")


def test_a_command_for_directories_says_so(in_opensearch: Connection) -> None:
    done = CliRunner().invoke(main, ["snapshot", "list"])
    assert done.exit_code == 2
    assert "this command works on an index in a directory" in done.output


def test_verify_needs_no_directory_and_says_when_there_is_no_index(in_opensearch: Connection) -> None:
    done = CliRunner().invoke(main, ["verify", "--index-root", "/no/such/directory"])
    assert done.exit_code != 0
    assert "no index in OpenSearch" in str(done.exception) + done.output


def test_the_demo_has_an_index_of_its_own_and_removes_it(in_opensearch: Connection, tmp_path: Path) -> None:
    with engine_variables("opensearch") as variables:
        index_id = variables["CLIPTIDE_INDEX__ID"]
        create_index(in_opensearch, tmp_path, index_id, description())
        OpenSearchReader(in_opensearch, index_id).reload()
    for name in (f"cliptide-{index_id}-contents", f"cliptide-{index_id}-state"):
        with pytest.raises(EngineMissing):
            in_opensearch.ask("GET", f"/{name}")


def test_the_demo_says_how_to_start_opensearch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_OPENSEARCH__URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NoEngine, match=r"start a node with `python -m tools\.opensearch_node`"):
        with engine_variables("opensearch"):
            pass


def test_the_demo_in_a_directory_needs_no_opensearch() -> None:
    with engine_variables("directory") as variables:
        assert variables == {}
