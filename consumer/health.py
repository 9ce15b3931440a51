"""`/livez`, `/readyz` and `/metrics` on an HTTP server of their own, on loopback by default.

- Live: every thread runs, intake has polled lately, and no other loop hangs for long. A red answer means:
  restart the process.
- Ready: live, every loop has turned lately, not stopping, without a failure (a flood of dead letters is
  one), every shard can be written, the encoder has not drifted from the one that the index was begun with,
  no step waits for the log or the disk, and no partition waits because of a record that only a newer release
  understands. A consumer without partitions is ready, because it stands by.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from consumer.pipeline import Pipeline
from service.host_names import are_own_hosts
from service.small_server import ServerLimits, SmallAnswer, SmallRequest, SmallServer

HANGS_FACTOR = 5


@dataclass(frozen=True, slots=True)
class Health:
    """Each entry says what is wrong; empty lists mean that all is well."""

    not_live: list[str]
    not_ready: list[str]


class Look(Protocol):
    """Tells the health of what the server stands beside."""

    def look(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Looks at a pipeline. It is not live when intake has not polled for `stalled_after_seconds`.

    When another loop has not turned for that long, it is not ready: a commit, a batch or a large picture
    takes less. After `HANGS_FACTOR` times as long it is not live. Not sooner, because a restart does not
    make a slow disk faster.
    """

    pipeline: Pipeline
    stalled_after_seconds: float

    def look(self) -> Health:
        not_live = self._problems_of_threads()
        return Health(not_live, [*not_live, *self._stalled(self.stalled_after_seconds, not_live)])

    def _stalled(self, after_seconds: float, known: list[str]) -> list[str]:
        """Name what is not ready, without what is known already."""
        stalled = [problem for problem in self._loops_stalled(after_seconds) if problem not in known]
        return [*stalled, *self._problems_of_pipeline()]

    def _loops_stalled(self, after_seconds: float) -> list[str]:
        return [
            f"the {name} loop has not turned for {seconds:.0f} seconds"
            for name, seconds in self.pipeline.seconds_since_turn.items()
            if seconds > after_seconds
        ]

    def is_ready(self) -> bool:
        return not self.look().not_ready

    def _problems_of_threads(self) -> list[str]:
        problems = [f"the {name} thread has ended" for name in self.pipeline.dead_threads]
        if self.pipeline.seconds_since_poll > self.stalled_after_seconds:
            problems.append(f"no poll for {self.pipeline.seconds_since_poll:.0f} seconds")
        if self.pipeline.dead_pool is not None:
            problems.append(self.pipeline.dead_pool)
        return [*problems, *self._loops_stalled(HANGS_FACTOR * self.stalled_after_seconds)]

    def _problems_of_pipeline(self) -> list[str]:
        problems = []
        if self.pipeline.failure is not None:
            problems.append(f"failed: {self.pipeline.failure}")
        if self.pipeline.is_stopping:
            problems.append("stopping")
        if not self.pipeline.is_writable:
            problems.append("the index cannot be written")
        if self.pipeline.encoder_drift is not None:
            problems.append(self.pipeline.encoder_drift)
        problems += [f"a partition waits: {reason}" for reason in self.pipeline.waiting_partitions]
        return [*problems, *self.pipeline.outages]


class HealthServer:
    """A small HTTP server in a thread of its own. Port 0 takes a free port."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        check: Look,
        registry: CollectorRegistry,
        host_names: Collection[str] = (),
        limits: ServerLimits | None = None,
    ) -> None:
        self._check = check
        self._registry = registry
        self._host_names = host_names
        self._server = SmallServer(host, port, self._answer, limits)

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()

    def _answer(self, request: SmallRequest) -> SmallAnswer:
        if not are_own_hosts(request.hosts, self._host_names):
            return SmallAnswer(HTTPStatus.FORBIDDEN, b'{"error": "unknown_host"}')
        if request.path == "/livez":
            return _answer_of(self._check.look().not_live)
        if request.path == "/readyz":
            return _answer_of(self._check.look().not_ready)
        if request.path == "/metrics":
            return SmallAnswer(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_LATEST)
        return SmallAnswer(HTTPStatus.NOT_FOUND, b'{"error": "not_found"}')


def _answer_of(problems: list[str]) -> SmallAnswer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    body = {"status": "red" if problems else "ok", "problems": problems}
    return SmallAnswer(status, json.dumps(body).encode())
