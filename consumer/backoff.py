"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_seconds` up to `longest_seconds`."""

    first_seconds: float = 0.1
    longest_seconds: float = 10.0

    def seconds(self, num_failures: int) -> float:
        """The wait after this many failures in a row (1, 2, …)."""
        doublings = min(max(num_failures - 1, 0), 32)
        return min(self.first_seconds * 2.0**doublings, self.longest_seconds)
