"""Says when another producer's open transaction holds records back for long. Pure, apart from the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from event_log.records import LogRange

_log = structlog.get_logger(__name__)
_PATIENCE_SECONDS = 30.0  # ordinary transactions are far shorter
_REPEAT_SECONDS = 60.0


@dataclass(slots=True)
class HeldBackRecords:
    """Follows one shard: since when its log is held back from the same offset. `now` is monotonic."""

    shard: str
    _held_from: int | None = None
    _since: float = 0.0
    _say_at: float = field(default=0.0)

    def observe(self, log: LogRange, *, now: float) -> None:
        """Log a warning when the same transaction has been open for 30 seconds, then once a minute."""
        if log.held_back_from != self._held_from:
            self._held_from, self._since, self._say_at = log.held_back_from, now, now + _PATIENCE_SECONDS
        if self._held_from is None or now < self._say_at:
            return
        self._say_at = now + _REPEAT_SECONDS
        _log.warning(
            "an open transaction holds records back",
            shard=self.shard,
            from_offset=self._held_from,
            num_records=log.num_held_back,
            open_seconds=round(now - self._since),
            way_on="its producer ends it, or the broker after the producer's transaction.timeout.ms; "
            "kafka-transactions.sh finds and aborts a hanging one",
        )
