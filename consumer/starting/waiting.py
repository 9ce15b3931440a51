"""A start waits for what comes back by itself: a broker that is away, a disk that is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from consumer.backoff import Backoff
from consumer.starting.signals import Signals
from consumer.telemetry.outages import Outages
from event_log.errors import TransientLogError

_BACKOFF = Backoff(0.5, 10.0)
BuiltT = TypeVar("BuiltT")


@dataclass(frozen=True, slots=True)
class Waits:
    """Tries again until a signal asks to stop; what is waited for shows among `outages`."""

    outages: Outages
    signals: Signals

    def for_disk(self, build: Callable[[], BuiltT]) -> BuiltT | None:
        """Build, and try again while the index's disk or store fails or is full; None when told to stop."""
        return self._try_until_built(build, OSError, place="index", part="start")

    def for_broker(self, build: Callable[[], BuiltT], servers: str) -> BuiltT | None:
        """Build, and try again while no broker of `servers` answers; None when told to stop.

        A broker that refuses the client (password, mechanism, TLS, protocol) is not waited for.
        """
        return self._try_until_built(build, TransientLogError, place="log", part=servers)

    def _try_until_built(
        self, build: Callable[[], BuiltT], failure: type[Exception], *, place: str, part: str
    ) -> BuiltT | None:
        num_failures = 0
        with self.outages.watched(place, part=part):
            while not self.signals.is_stop_requested:
                try:
                    return build()
                except failure as error:
                    num_failures += 1
                    self.outages.failed(place, error, part=part)
                self.signals.pause(_BACKOFF.seconds(num_failures))
        return None
