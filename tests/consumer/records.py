"""Records and lanes for tests."""

from __future__ import annotations

from pathlib import Path

from consumer.backlog.lane import Lane
from consumer.quarantine.inflight import InFlight, InFlightFile
from event_log.records import Record


def record(offset: int, *, epoch: int = 1, partition: int = 0, size: int = 10) -> Record:
    return Record("uploads", partition, offset, b"k", b"v" * (size - 1), (), 1000 + offset, epoch)


def lane(tmp_path: Path, *, next_offset: int = 0, suspects_below: int = 0) -> Lane:
    inflight = InFlightFile(tmp_path / "inflight.json", InFlight(suspects_below))
    return Lane(0, 1, next_offset, inflight, suspects_below)
