"""One system under measurement: a server process that is asked, and that takes rows."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.processes.process_figures import cpu_seconds
from clip_index.content import Embeddings

EFFORTS = (50, 100, 150, 200, 300, 400, 600, 800)
PATIENCE_SECONDS = 120.0
_ANSWER_SECONDS = 1_200.0  # a request may build an index, on a machine that does other work
_QUIET_SECONDS, _QUIET_CPU_SECONDS = 0.5, 0.02


class System(Protocol):
    """A running server with the rows 0, 1, … of a generated index."""

    @property
    def name(self) -> str:
        """The system's name, as people know it."""

    @property
    def port(self) -> int:
        """The loopback port on which it listens. It may change when the effort does."""

    @property
    def path(self) -> str:
        """The path of a search."""

    @property
    def efforts(self) -> Sequence[int]:
        """The efforts to try, from the least on."""

    @property
    def query_pid(self) -> int:
        """The process that answers searches."""

    @property
    def ingest_pid(self) -> int:
        """The process that takes rows."""

    def set_effort(self, effort: int) -> None:
        """Choose how much a search looks at, from now on."""

    def body(self, query: Embeddings, k: int) -> str:
        """Return the body of a search."""

    def ids_of(self, answer: bytes) -> list[int]:
        """Return the numbers of the rows in an answer. A row that was appended has its number too."""

    def append(self, numbers: Sequence[int], rows: Embeddings) -> None:
        """Hand over rows. They cannot be lost any more when this returns."""

    def finish(self) -> None:
        """Let the system do by order what its documents want done after many appends."""

    def ingest_cpu_seconds(self) -> float:
        """Return the CPU time so far of the processes that take rows."""


def as_list(vector: Embeddings) -> list[float]:
    return [round(float(x), 7) for x in vector]


def ask(system: System, query: Embeddings, k: int) -> list[int]:
    """Search once, and return the numbers of the rows found."""
    return system.ids_of(call(system.port, "POST", system.path, system.body(query, k)))


def call(port: int, method: str, path: str, body: str | None = None) -> bytes:
    """Send one request over its own connection. Raises `RuntimeError` unless it succeeds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path} was answered {response.status}: {answer[:300]!r}")
    return answer


def call_json(port: int, method: str, path: str, content: Any = None) -> Any:
    answer = call(port, method, path, None if content is None else json.dumps(content))
    return json.loads(answer) if answer else None


def wait_until_quiet(pid: int) -> None:
    """Wait until a process has stopped working, or for two minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(_QUIET_SECONDS)
        if cpu_seconds(pid) - before < _QUIET_CPU_SECONDS:
            return
