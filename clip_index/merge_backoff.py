"""When a failed merge may be tried again."""

from __future__ import annotations

from dataclasses import dataclass, field

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0


@dataclass(slots=True)
class _Failures:
    count: int = 0
    latest_at: float = 0.0


@dataclass(slots=True)
class MergeBackoff:
    """Waits that double up to a minute, for each lane of one shard; a merge that ends well resets them.

    `now` is of any clock; one that is set back ends the wait.
    """

    _lanes: dict[bool, _Failures] = field(default_factory=lambda: {False: _Failures(), True: _Failures()})

    def failed(self, *, is_large: bool, now: float) -> None:
        failures = self._lanes[is_large]
        failures.count += 1
        failures.latest_at = now

    def succeeded(self, *, is_large: bool) -> None:
        self._lanes[is_large].count = 0

    def is_due(self, *, is_large: bool, now: float) -> bool:
        failures = self._lanes[is_large]
        if not failures.count:
            return True
        wait = min(_FIRST_SECONDS * 2.0 ** (min(failures.count, 32) - 1), _LONGEST_SECONDS)
        return not 0 <= now - failures.latest_at < wait
