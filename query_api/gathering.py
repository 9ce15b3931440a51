"""When queries that came together should go on waiting for each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gathering:
    """The wait after a batch of several queries, for those of the same clients that follow.

    The encoder uses every core, and so do the searches of what it has encoded last. Started
    beside them it would be slower, and so would they; and it would take the few that wait
    already, instead of those few and all who ask again as soon as they are answered. A batch
    costs far less than its parts. So it waits, but not longer than the last batch took, and
    never after a query that was alone.
    """

    num_expected: int = 0
    until: float = 0.0

    @classmethod
    def after(
        cls, num_encoded: int, num_waiting: int, *, began: float, ended: float, max_seconds: float
    ) -> Gathering:
        """`num_waiting` came while a batch of `num_encoded` was encoded; times in seconds."""
        if num_encoded < 2:
            return cls()
        return cls(num_encoded + num_waiting, ended + min(ended - began, max_seconds))

    def is_over(self, num_waiting: int, now: float, *, is_quiet: bool) -> bool:
        """Whether to start: all are back, or nothing is under way that they could come from."""
        return is_quiet or now >= self.until or num_waiting >= self.num_expected
