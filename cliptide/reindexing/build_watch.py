"""Shows how far a consumer has come that builds an index beside the served one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from clip_index.indexes.index_directory import IndexDirectory
from cliptide.reindexing.forecast import in_words
from cliptide.reindexing.shard_gaps import ShardGap, read_gaps, read_next_offsets
from cliptide.terminal.waiting import tell

LINE_EVERY_SECONDS = 2.0
_RATE_OVER_SECONDS = 60.0


@dataclass(slots=True)
class BuildWatch:
    """Tells done, rate and time left until the index has caught up with the served one."""

    index: IndexDirectory
    served: IndexDirectory
    say: Callable[[str], None] = tell
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def run(self) -> int:
        """Return how many records were read when the index had caught up."""
        while True:
            gaps = read_gaps(self.index, read_next_offsets(self.served))
            behind = sum(gap.num_behind for gap in gaps)
            self.say(self._line(gaps, behind))
            if not behind:
                return _num_done(gaps)
            self.pause(LINE_EVERY_SECONDS)

    def _line(self, gaps: list[ShardGap], behind: int) -> str:
        done = _num_done(gaps)
        line = f"{self.index.index_id}: {done:,} of {done + behind:,} records"
        if not behind:
            return f"{line}: it has caught up with {self.served.index_id}"
        if all(gap.next_offset is None for gap in gaps):
            return f"{line}: no consumer has begun yet"
        rate = self._rate(done)
        if not rate:
            return f"{line}: nothing came within {self._span():.0f} s" if self._span() > 5 else line
        return f"{line}, {rate:,.0f}/s, {in_words(behind / rate)} left"

    def _rate(self, done: int) -> float:
        """Return the records a second over the last minute."""
        now = self.clock()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _RATE_OVER_SECONDS:
            self._seen.popleft()
        began, first = self._seen[0]
        return (done - first) / (now - began) if now > began else 0.0

    def _span(self) -> float:
        return self._seen[-1][0] - self._seen[0][0]


def _num_done(gaps: list[ShardGap]) -> int:
    return sum(gap.next_offset - gap.first_offset for gap in gaps if gap.next_offset is not None)
