"""Records and lanes for tests."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from consumer.backlog.lane import Lane
from consumer.quarantine.inflight import InFlight, InFlightFile
from event_log.records import Delivery, Record


def record(offset: int, *, epoch: int = 1, partition: int = 0, size: int = 10) -> Record:
    return Record("uploads", partition, offset, b"k", b"v" * (size - 1), (), 1000 + offset, epoch)


class Letter:
    """Implements `DeadLetter`: each attempt is what the function returns."""

    def __init__(self, attempt: Callable[[], Future[Delivery]]) -> None:
        self.offer = self.offer_without_value = self.offer_summary = attempt


def lane(tmp_path: Path, *, next_offset: int = 0, suspects_below: int = 0) -> Lane:
    inflight = InFlightFile(tmp_path / "inflight.json", InFlight(suspects_below))
    return Lane(0, 1, next_offset, inflight, range(suspects_below))
