"""How long a takeover is tried again while log or disk do not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from clip_index.errors import CommitUnknown
from consumer.backoff import Backoff
from consumer.errors import AssignmentFailed, TakeoverAbandoned
from consumer.pipeline_state import PipelineState
from consumer.telemetry.metrics import Metrics
from event_log.errors import TransientLogError

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class AssignmentPatience:
    """How long each part of a rebalance may take.

    `take_over_seconds` bounds each step of a takeover; it must stay below Kafka's
    `max.poll.interval.ms`. `release_seconds` bounds both steps of a revoke: the batch at hand, then
    the commits of all shards together. `log_end_seconds` is how long a log that seems to end before
    our position is asked again.
    """

    take_over_seconds: float = 60.0
    release_seconds: float = 10.0
    log_end_seconds: float = 3.0
    backoff: Backoff = field(default_factory=Backoff)


class TakeoverRetry:
    """Tries a step of a takeover again until it succeeds, time is up, or the consumer is to stop."""

    def __init__(self, patience: AssignmentPatience, state: PipelineState, metrics: Metrics) -> None:
        self._patience = patience
        self._state = state
        self._metrics = metrics

    def until_done(self, step: Callable[[], ResultT]) -> ResultT:
        """Raises `AssignmentFailed` after `take_over_seconds`, `TakeoverAbandoned` at a stop."""
        with self._metrics.outages.watched("assignment"):
            return self._until_done(step)

    def _until_done(self, step: Callable[[], ResultT]) -> ResultT:
        deadline = time.monotonic() + self._patience.take_over_seconds
        num_failures = 0
        while True:
            try:
                return step()
            except (TransientLogError, OSError, CommitUnknown) as error:
                num_failures += 1
                self._metrics.outages.failed("assignment", error)
                if time.monotonic() >= deadline:
                    raise AssignmentFailed(f"a partition could not be taken over: {error}") from error
                if self._state.wait(self._patience.backoff.seconds(num_failures)):
                    raise TakeoverAbandoned(f"stopped before a partition was taken over: {error}") from error
