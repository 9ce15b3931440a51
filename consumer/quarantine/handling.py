"""How a record is decoded, prepared and encoded: beside others, or in quarantine by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.errors import BadContent
from consumer.backoff import Backoff
from consumer.quarantine.inflight import InFlightFile
from consumer.quarantine.risk_gate import RiskGate
from consumer.tasks import AlreadyEncoded, Encodable, Outcome, Upload
from consumer.telemetry.metrics import Metrics
from schemas.errors import BadEvent, SchemaNotAtHand, UnknownSchema

_DISK_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=1.0)
_NOTHING = nullcontext()  # has no state, so all threads may share it


class Handling(Protocol):
    """Surrounds every step in which a content could kill the process. Thread-safe."""

    def around_group(self) -> AbstractContextManager[None]:
        """Surrounds the steps of a group of tasks, which one thread does one after the other."""

    def around_step(self) -> AbstractContextManager[None]:
        """Surrounds each of these steps, inside `around_group`."""

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        """Make an outcome of what was prepared; called inside `around_step`."""


class NormalHandling:
    """A record is prepared beside others and encoded in a batch."""

    def __init__(self, gate: RiskGate) -> None:
        self._gate = gate

    def around_group(self) -> AbstractContextManager[None]:
        return self._gate.together()

    def around_step(self) -> AbstractContextManager[None]:
        return _NOTHING

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        return Encodable(upload, prepared)


class QuarantineHandling:
    """A suspect record is handled while no other is, and the in-flight file says so meanwhile.

    While the record waits for its reference, others go on, because waiting kills no process. While
    the in-flight file is being written, the others wait: the offset in the file must be the only
    one that is handled.
    """

    def __init__(
        self, gate: RiskGate, encoder: Encoder, *, inflight: InFlightFile, offset: int, metrics: Metrics
    ) -> None:
        self._gate = gate
        self._encoder = encoder
        self._inflight = inflight
        self._offset = offset
        self._metrics = metrics

    def around_group(self) -> AbstractContextManager[None]:
        return _NOTHING

    def around_step(self) -> AbstractContextManager[None]:
        return self._marked()

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        return AlreadyEncoded(upload, self._encoder.encode([prepared])[0])

    @contextmanager
    def _marked(self) -> Iterator[None]:
        with self._gate.alone():
            self._persist(lambda: self._inflight.mark_alone(self._offset))
            try:
                yield
            except (BadEvent, BadContent, UnknownSchema, SchemaNotAtHand):
                self._persist(self._inflight.unmark_alone)
                raise
            # Deliberately not in a `finally`: after any other exception the mark must stay, so that
            # the next start counts this death.
            self._persist(self._inflight.unmark_alone)

    def _persist(self, write: Callable[[], None]) -> None:
        """Try again while the disk fails; `InFlightClosed` ends it when the shard is given away."""
        num_failures, part = 0, f"offset {self._offset} in quarantine"
        with self._metrics.outages.watched("inflight", part=part):
            while True:
                try:
                    return write()
                except OSError as error:
                    num_failures += 1
                    self._metrics.outages.failed("inflight", error, part=part)
                time.sleep(_DISK_BACKOFF.seconds(num_failures))
