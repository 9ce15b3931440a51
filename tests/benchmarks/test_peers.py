"""The figure that compares this project with others. What it measures of them needs their packages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from benchmarks.__main__ import as_json
from benchmarks.clients.served_queries import serving_app
from benchmarks.peer_services.environment import NotInstalled, installed
from benchmarks.peer_services.system import ask
from benchmarks.peer_services.vector_server import Vectors, build_app
from benchmarks.peers import QUICK, Judge, Side, _ratios, measure_beside
from clip_index.content import Embeddings

ROWS = np.eye(40, dtype=np.float32)


class ExactRows:
    """A library for the plain handler. With an effort below 40 it looks at as many rows only."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.vectors = np.empty((0, ROWS.shape[1]), np.float32)

    async def search(self, vector: Vectors, k: int, effort: int) -> tuple[list[int], list[float]]:
        scores = self.vectors[:effort] @ vector
        best = np.argsort(-scores, kind="stable")[:k]
        return [self.ids[n] for n in best], scores[best].tolist()

    async def append(self, ids: list[int], vectors: Vectors) -> None:
        self.ids += ids
        self.vectors = np.concatenate([self.vectors, vectors])

    async def finish(self) -> None:
        """Nothing is built."""


class Served:
    """A handler in this process, asked as the real ones are."""

    path = "/search"
    efforts = (10, 20, 40)

    def __init__(self, port: int) -> None:
        self.port = port
        self.effort = 10

    def set_effort(self, effort: int) -> None:
        self.effort = effort

    def body(self, query: Embeddings, k: int) -> str:
        return json.dumps({"vector": query.tolist(), "k": k, "effort": self.effort})

    def ids_of(self, answer: bytes) -> list[int]:
        ids: list[int] = json.loads(answer)["ids"]
        return ids


async def test_the_plain_handler_finds_what_was_appended() -> None:
    async with TestClient(TestServer(build_app(ExactRows()))) as client:
        rows = {"ids": list(range(40)), "vectors": ROWS.tolist()}
        assert (await client.post("/append", json=rows)).status == 200
        assert (await client.post("/finish")).status == 200
        wanted = {"vector": ROWS[7].tolist(), "k": 1, "effort": 40}
        assert await (await client.post("/search", json=wanted)).json() == {"ids": [7], "scores": [1.0]}


def test_the_effort_is_raised_until_the_recall_is_reached() -> None:
    library = ExactRows()
    library.ids, library.vectors = list(range(40)), ROWS
    with serving_app(build_app(library)) as port:
        served = Served(port)
        queries = np.ascontiguousarray(np.cumsum(ROWS, axis=0)[15:20]) / np.arange(1, 41, dtype=np.float32)
        side = Judge(ROWS, queries).calibrate(served)  # the ten best of each are the first ten rows
        assert (side.effort, side.recall) == (10, 1.0)
        side = Judge(ROWS, queries[:, ::-1].copy()).calibrate(served)  # and the last ten of each
        assert (side.effort, side.recall) == (40, 1.0)
        assert len(ask(served, queries[0], 10)) == 10


def test_rows_that_tie_with_the_tenth_best_count_as_found() -> None:
    class AnsweringLast(Served):
        def ids_of(self, answer: bytes) -> list[int]:
            return list(range(30, 40))

    library = ExactRows()
    library.ids, library.vectors = list(range(40)), ROWS
    same: Embeddings = np.ones((1, 40), np.float32)
    with serving_app(build_app(library)) as port:
        assert Judge(ROWS, same).recall(AnsweringLast(port)) == 1.0


def test_a_peer_that_cannot_be_installed_says_what_pip_said(tmp_path: Path) -> None:
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text("#!/bin/sh\necho no such version\nexit 1\n")
    pip.chmod(0o755)
    with pytest.raises(NotInstalled, match="hnswlib cannot be installed: no such version"):
        installed("hnswlib", tmp_path)
    assert not list(tmp_path.glob("has-*"))


def test_a_peer_that_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text("#!/bin/sh\necho called >> $(dirname $0)/calls\n")
    pip.chmod(0o755)
    assert installed("Chroma", tmp_path) == installed("Chroma", tmp_path) == tmp_path / "bin"
    assert (tmp_path / "bin" / "calls").read_text() == "called\n"


@pytest.mark.parametrize(
    ("recalls", "compared"),
    [
        ({"Chroma": 0.99, "LanceDB": 1.0, "hnswlib": 0.99}, {"of_server": 2.0, "of_floor": 4.0}),
        ({"Chroma": 0.98, "LanceDB": 1.0, "hnswlib": 0.99}, {"of_server": 1.0, "of_floor": 4.0}),
        ({"Chroma": 0.98, "hnswlib": 0.98}, {}),
        ({}, {}),
    ],
    ids=["the cheaper server", "one below the recall", "none at the recall", "none installed"],
)
def test_only_systems_that_reach_the_recall_are_compared(
    recalls: dict[str, float], compared: dict[str, float]
) -> None:
    costs = {"Chroma": 2.0, "LanceDB": 4.0, "hnswlib": 1.0}
    sides = {name: Side(recall=recall, cpu_seconds=[costs[name]]) for name, recall in recalls.items()}
    sides["cliptide"] = Side(recall=1.0, cpu_seconds=[4.0])
    assert {name: ratio.median for name, ratio in _ratios(sides).items()} == compared


@pytest.mark.broker
def test_the_figure_says_which_peers_are_missing_and_then_does_not_hold() -> None:
    figure = measure_beside([], {"Chroma": "no such version"}, QUICK)
    found = as_json(figure)
    assert found["holds"] is False
    assert found["not_installed"] == {"Chroma": "no such version"}
    assert ("Chroma", "not measured", "no such version", "", "", "") in figure.table
    own = found["systems"]["clustered"]["cliptide"]
    assert own["recall"] == 1.0
    assert own["cpu_ms_a_query"] > 0
    assert own["append_to_found_ms"] > 0
