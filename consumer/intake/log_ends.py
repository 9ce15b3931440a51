"""How long a partition has been behind, computed from where its log ended and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_RESOLUTION = 0.01  # keep log ends at least 1 % of the lag apart: about 800 samples for a lag of a day


@dataclass(slots=True)
class LogEnds:
    """Samples of the log's end, from the latest one that is committed to the newest.

    The lag is measured with this process's clock, because a producer's clock in the future would
    hide any lag. Record timestamps, which come from producers, count only until the first sample
    is committed. `now` is the time of a monotonic clock.
    """

    _ends: list[tuple[float, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._ends)

    def observe(self, next_offset: int, *, now: float) -> None:
        """Remember that the log ends here now. The longer the lag, the fewer samples are kept."""
        if len(self) > 1 and now - self._ends[-2][0] < _RESOLUTION * (now - self._ends[0][0]):
            del self._ends[-1]
        self._ends.append((now, next_offset))

    def seconds_behind(self, committed: int, *, newest_age: float, now: float) -> float:
        """The age of the latest log end that `committed`, a next offset, has reached.

        If none is reached, it is the age of the first log end, or of the newest committed record if
        that is greater.
        """
        while len(self._ends) > 1 and self._ends[1][1] <= committed:
            del self._ends[0]
        answered_at, end = self._ends[0]
        age = now - answered_at
        return age if end <= committed else max(age, newest_age)
