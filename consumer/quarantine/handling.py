"""How a record is kept from harming others while it is decoded, prepared and encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import structlog

from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.errors import BadContent
from consumer.backoff import Backoff
from consumer.quarantine.inflight import InFlightFile
from consumer.quarantine.risk_gate import RiskGate
from consumer.tasks import AlreadyEncoded, Encodable, Outcome, Upload
from consumer.telemetry.metrics import Metrics
from schemas.errors import BadEvent

_log = structlog.get_logger(__name__)
_DISK_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=1.0)
_NOTHING = nullcontext()  # holds no state, so one serves all threads


class Handling(Protocol):
    """Surrounds every step in which a content could kill the process."""

    def company(self) -> AbstractContextManager[None]:
        """Surrounds the steps of tasks that are prepared together."""

    def risk(self) -> AbstractContextManager[None]:
        """Surrounds the step of each of them, inside `company`."""

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        """Called inside `risk`."""


class Together:
    """The normal handling: prepared beside others, encoded in a batch."""

    def __init__(self, gate: RiskGate) -> None:
        self._gate = gate

    def company(self) -> AbstractContextManager[None]:
        return self._gate.together()

    def risk(self) -> AbstractContextManager[None]:
        return _NOTHING

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        return Encodable(upload, prepared)


class Alone:
    """Quarantine: the record has the process for itself, and the disk says so meanwhile.

    While it waits for its reference it is not alone: waiting kills nobody. While it waits for
    the disk it is: an offset that the disk names must be the only one under way.
    """

    def __init__(
        self, gate: RiskGate, encoder: Encoder, inflight: InFlightFile, offset: int, metrics: Metrics
    ) -> None:
        self._gate = gate
        self._encoder = encoder
        self._inflight = inflight
        self._offset = offset
        self._metrics = metrics

    def company(self) -> AbstractContextManager[None]:
        return _NOTHING

    def risk(self) -> AbstractContextManager[None]:
        return self._marked()

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        return AlreadyEncoded(upload, self._encoder.encode([prepared])[0])

    @contextmanager
    def _marked(self) -> Iterator[None]:
        with self._gate.alone():
            self._persist(lambda: self._inflight.mark_alone(self._offset))
            try:
                yield
            except (BadEvent, BadContent):
                self._persist(self._inflight.unmark_alone)
                raise
            # not behind other exceptions: a fault ends the process, and counts
            self._persist(self._inflight.unmark_alone)

    def _persist(self, write: Callable[[], None]) -> None:
        """Try again while the disk does not take it, until the shard is given away (`InFlightClosed`)."""
        num_failures = 0
        while True:
            try:
                return write()
            except OSError as error:
                num_failures += 1
                self._metrics.transient_errors.labels("inflight").inc()
                _log.warning("quarantine is waiting for the disk", offset=self._offset, error=str(error))
            time.sleep(_DISK_BACKOFF.seconds(num_failures))
