"""The node that the tests share."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from cliptide.demo.child_process import end
from tests.fixtures.processes import is_running
from tools.opensearch_node import node as node_module
from tools.opensearch_node.node import OpenSearchNode


def test_a_node_answers_with_its_version(opensearch_node: OpenSearchNode) -> None:
    with urllib.request.urlopen(opensearch_node.url) as answer:
        version = json.load(answer)["version"]
    assert (version["distribution"], version["number"]) == ("opensearch", "2.19.1")


def test_a_node_that_does_not_start_leaves_no_process_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = []

    def start_wrongly(home: Path, _settings: object) -> object:
        home.mkdir(parents=True)
        started.append(node_module.spawn(["sleep", "60"], home / "node.log"))
        return started[-1]

    monkeypatch.setattr(node_module, "start_node", start_wrongly)
    monkeypatch.setattr(node_module, "_START_SECONDS", 0.2)
    with pytest.raises(RuntimeError, match="did not start"), OpenSearchNode():
        pass
    assert started
    for process in started:
        assert not is_running(process.pid)
        end(process, 1.0)
