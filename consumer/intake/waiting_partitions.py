"""Tells of partitions that wait because of one record. Runs in the intake thread."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from consumer.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)
_REPEAT_SECONDS = 60.0


class WaitingPartitions:
    """Logs each waiting partition at once and then every minute, and exports how many there are."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._say_at: dict[int, float] = {}
        self.reasons: tuple[str, ...] = ()

    def observe(self, waiting: Mapping[int, str], *, now: float) -> None:
        """`waiting` says for each waiting partition why it waits. `now` is monotonic."""
        self._metrics.waiting_partitions.set(len(waiting))
        self.reasons = tuple(waiting.values())
        self._say_at = {partition: due for partition, due in self._say_at.items() if partition in waiting}
        for partition, reason in waiting.items():
            if now >= self._say_at.get(partition, now):
                self._say_at[partition] = now + _REPEAT_SECONDS
                _log.warning("partition waits", partition=partition, reason=reason)
