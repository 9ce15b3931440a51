"""What the log says of records that are set aside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from consumer.dead_letters.dead_letter import SetAside
from event_log.records import Record

_TELL_EVERY_SECONDS = 60.0


class DeadLetterReport:
    """Tells of dead letters once a minute at most, by reason, with the first one as an example.

    Belongs to one thread, which calls `tell_if_due` at least every second.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = structlog.get_logger(__name__)
        self._counts: Counter[str] = Counter()
        self._example: tuple[Record, SetAside] | None = None
        self._due_at = clock()

    def add(self, record: Record, set_aside: SetAside) -> None:
        self._counts[set_aside.reason] += 1
        if self._example is None:
            self._example = record, set_aside

    def tell_if_due(self) -> None:
        if self._example is not None and self._clock() >= self._due_at:
            self.tell()

    def tell(self) -> None:
        """Tell of what was added since it was last told, if anything was."""
        if self._example is None:
            return
        record, set_aside = self._example
        self._log.warning(
            "records set aside",
            counts=dict(self._counts),
            example=f"{record.topic}-{record.partition}@{record.offset}",
            reason=set_aside.reason,
            detail=set_aside.detail,
        )
        self._counts, self._example = Counter(), None
        self._due_at = self._clock() + _TELL_EVERY_SECONDS
