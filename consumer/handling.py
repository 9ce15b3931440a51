"""How a record is kept from harming others while it is decoded, prepared and encoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from clip_index.encoder import Encoder, Prepared
from clip_index.errors import BadContent
from consumer.inflight import InFlightFile
from consumer.risk_gate import RiskGate
from consumer.work import AlreadyEncoded, Encodable, Outcome, Upload
from schemas.errors import BadEvent

_NOTHING = nullcontext()  # holds no state, so one serves all threads


class Handling(Protocol):
    """Surrounds every step in which a content could kill the process."""

    def company(self) -> AbstractContextManager[None]:
        """Surrounds the steps of works that are prepared together."""

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

    While it waits for its reference it is not alone: waiting kills nobody.
    """

    def __init__(self, gate: RiskGate, encoder: Encoder, inflight: InFlightFile, offset: int) -> None:
        self._gate = gate
        self._encoder = encoder
        self._inflight = inflight
        self._offset = offset

    def company(self) -> AbstractContextManager[None]:
        return _NOTHING

    def risk(self) -> AbstractContextManager[None]:
        return self._marked()

    def finish(self, upload: Upload, prepared: Prepared) -> Outcome:
        return AlreadyEncoded(upload, self._encoder.encode([prepared])[0])

    @contextmanager
    def _marked(self) -> Iterator[None]:
        with self._gate.alone():
            self._inflight.mark_alone(self._offset)
            try:
                yield
            except (BadEvent, BadContent):
                self._inflight.unmark_alone()
                raise
            self._inflight.unmark_alone()  # not behind other exceptions: a fault ends the process, and counts
