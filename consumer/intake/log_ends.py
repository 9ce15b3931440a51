"""How long a partition has been behind, going by where its log ended and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_RESOLUTION = 0.01  # of a lag: a day of one has 800 ends


@dataclass(slots=True)
class LogEnds:
    """The log's ends as they were answered, from the latest one that is committed on.

    The timestamps of records are their producers', and one clock in the future would hide any
    lag. When a log had which end is on our own, so timestamps count only where nothing else
    tells: while what was there when we began is not committed yet. `now` is of a monotonic clock.
    """

    _ends: list[tuple[float, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._ends)

    def observe(self, next_offset: int, *, now: float) -> None:
        """The log ends here; the longer the lag, the further apart are the ends that are kept."""
        if len(self) > 1 and now - self._ends[-2][0] < _RESOLUTION * (now - self._ends[0][0]):
            del self._ends[-1]
        self._ends.append((now, next_offset))

    def seconds_behind(self, committed: int, *, newest_age: float, now: float) -> float:
        """The age of the latest end at or below `committed`, a next offset.

        Without one it is the first end's, or that of the newest record if it is greater.
        """
        while len(self._ends) > 1 and self._ends[1][1] <= committed:
            del self._ends[0]
        answered_at, end = self._ends[0]
        age = now - answered_at
        return age if end <= committed else max(age, newest_age)
