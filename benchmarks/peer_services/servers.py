"""Chroma's server, and plain handlers before LanceDB and hnswlib, with the rows of a generated index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.indexes.searched_index import Layout
from benchmarks.peer_services.environment import PEERS, REQUIREMENTS, installed
from benchmarks.peer_services.system import (
    EFFORTS,
    PATIENCE_SECONDS,
    System,
    as_list,
    call_json,
)
from benchmarks.processes.process_figures import cpu_seconds
from clip_index.content import Embeddings
from cliptide.demo.child_process import accepts_connections, end, free_port, last_lines, spawn

_HANDLER = Path(__file__).with_name("vector_server.py")
_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_ROWS_AT_ONCE = 1_000
_STOP_SECONDS = 30.0


class _Process:
    """A server process that can be started again."""

    def __init__(self, command: Callable[[int], list[str]], log_path: Path) -> None:
        self._command = command
        self._log_path = log_path
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start it on a free port, and wait until it listens."""
        self.port = free_port()
        quiet = {**os.environ, "RUST_LOG": "error", "LANCE_LOG": "error"}
        self._process: subprocess.Popen[bytes] = spawn(
            self._command(self.port), self._log_path, environment=quiet
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not accepts_connections(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("\n".join(last_lines(self._log_path)))
            time.sleep(0.05)

    def stop(self) -> None:
        end(self._process, _STOP_SECONDS)


class _Peer:
    """What all peers have in common: one process answers and takes rows."""

    efforts: Sequence[int] = EFFORTS

    def __init__(self, process: _Process) -> None:
        self._process = process

    @property
    def port(self) -> int:
        return self._process.port

    @property
    def query_pid(self) -> int:
        return self._process.pid

    @property
    def ingest_pid(self) -> int:
        return self._process.pid

    def ingest_cpu_seconds(self) -> float:
        return cpu_seconds(self._process.pid)

    def stop(self) -> None:
        self._process.stop()


class Handler(_Peer):
    """A plain aiohttp handler before a library."""

    path = "/search"

    def __init__(self, name: str, directory: Path) -> None:
        program = installed(name) / "python"
        command = [str(program), str(_HANDLER), name.lower(), str(directory / "data")]
        super().__init__(_Process(lambda port: [*command, str(port)], directory / "log"))
        self.name = f"{name} + aiohttp"
        self._effort = EFFORTS[0]

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def body(self, query: Embeddings, k: int) -> str:
        return json.dumps({"vector": as_list(query), "k": k, "effort": self._effort})

    def ids_of(self, answer: bytes) -> list[int]:
        ids: list[int] = json.loads(answer)["ids"]
        return ids

    def append(self, numbers: Sequence[int], rows: Embeddings) -> None:
        vectors = [as_list(row) for row in rows]
        call_json(self.port, "POST", "/append", {"ids": list(numbers), "vectors": vectors})

    def finish(self) -> None:
        call_json(self.port, "POST", "/finish", {})


class Chroma(_Peer):
    """Chroma's own server, with one collection. It takes a new effort when it starts."""

    name = "Chroma's server"

    def __init__(self, directory: Path) -> None:
        command = [str(installed("Chroma") / "chroma"), "run", "--path", str(directory / "data"), "--port"]
        super().__init__(_Process(lambda port: [*command, str(port)], directory / "log"))
        self._collection = f"{_COLLECTIONS}/{self._open()['id']}"
        self.path = f"{self._collection}/query"

    def _open(self) -> Any:
        graph = {"space": "ip", "max_neighbors": 16, "ef_construction": 200, "ef_search": EFFORTS[0]}
        wanted = {"name": "rows", "get_or_create": True, "configuration": {"hnsw": graph}}
        return call_json(self.port, "POST", _COLLECTIONS, wanted)

    def set_effort(self, effort: int) -> None:
        changed = {"new_configuration": {"hnsw": {"ef_search": effort}}}
        call_json(self.port, "PUT", self._collection, changed)
        self._process.stop()
        self._process.start()

    def body(self, query: Embeddings, k: int) -> str:
        return json.dumps({"query_embeddings": [as_list(query)], "n_results": k, "include": ["distances"]})

    def ids_of(self, answer: bytes) -> list[int]:
        return [int(found) for found in json.loads(answer)["ids"][0]]

    def append(self, numbers: Sequence[int], rows: Embeddings) -> None:
        wanted = {"ids": [str(number) for number in numbers], "embeddings": [as_list(row) for row in rows]}
        call_json(self.port, "POST", f"{self._collection}/upsert", wanted)

    def finish(self) -> None:
        """Chroma writes its graph by itself, after each 1,000 rows."""


_STARTS: dict[str, Callable[[Path], Chroma | Handler]] = {
    "Chroma": Chroma,
    "LanceDB": lambda directory: Handler("LanceDB", directory),
    "hnswlib": lambda directory: Handler("hnswlib", directory),
}
NAMES = tuple(_STARTS)


@contextmanager
def running_peer(name: str, layout: Layout, directory: Path) -> Iterator[System]:
    """Start a peer with a copy of its rows. Raises `NotInstalled`."""
    shutil.copytree(kept_rows(name, layout), directory / name)
    with _started(name, directory / name) as peer:
        yield peer


def kept_rows(name: str, layout: Layout) -> Path:
    """Return the peer's directory with the rows; write them first if this version has not written them.

    Writing 50,000 rows takes a peer about a minute of CPU time.
    """
    kept = PEERS / f"{REQUIREMENTS[name]}-{layout.name}"
    if not (kept / "complete").exists():
        _fill(name, layout, kept)
    return kept


def _fill(name: str, layout: Layout, kept: Path) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    rows = layout.rows()
    with _started(name, kept) as peer:
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[first : first + _ROWS_AT_ONCE]
            peer.append(range(first, first + len(some)), some)
        peer.finish()
    (kept / "complete").touch()


@contextmanager
def _started(name: str, directory: Path) -> Iterator[Chroma | Handler]:
    peer = _STARTS[name](directory)
    try:
        yield peer
    finally:
        peer.stop()
