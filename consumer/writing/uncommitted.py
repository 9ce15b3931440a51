"""The handovers of one shard, from their arrival until a commit covers them. Pure."""

from __future__ import annotations

from collections import deque

from clip_index.content import Delta
from consumer.errors import ConsumerFault
from consumer.tasks import Handover
from consumer.writing.handovers import delivered_handovers, delta_before_letters


class UncommittedHandovers:
    """In offset order: first those that are added to the writer, then those that wait to be added.

    A handover waits until its dead letters are delivered. It is kept after it is added, because
    after a commit of unknown outcome it may have to be added again.
    """

    def __init__(self) -> None:
        self._added: deque[Handover] = deque()
        self._waiting: deque[Handover] = deque()
        self._added_since: float | None = None
        self.added_bytes = 0
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._added) + len(self._waiting)

    @property
    def added(self) -> tuple[Handover, ...]:
        """What the next commit covers."""
        return tuple(self._added)

    @property
    def has_added(self) -> bool:
        return bool(self._added)

    def accept(self, handover: Handover) -> None:
        self._waiting.append(handover)
        self.waiting_bytes += handover.size_bytes

    def delivered(self, now: float) -> list[Handover]:
        """The next handovers that may be added together, as one delta."""
        return delivered_handovers(self._waiting, now)

    def before_refused_letter(self, now: float) -> Delta | None:
        """What precedes the dead letter that holds everything up; None if nothing does."""
        delta = delta_before_letters(self._waiting[0], now) if self._waiting else None
        return delta if delta is not None and delta.next_offset > delta.from_offset else None

    def mark_added(self, num_handovers: int, now: float) -> None:
        """The first handovers that waited are added now."""
        if self._added_since is None:
            self._added_since = now
        for _ in range(num_handovers):
            handover = self._waiting.popleft()
            self._added.append(handover)
            self.waiting_bytes -= handover.size_bytes
            self.added_bytes += handover.size_bytes

    def added_age(self, now: float) -> float:
        """Seconds since the first of the added handovers was added; 0 without any."""
        return 0.0 if self._added_since is None else now - self._added_since

    def make_due(self) -> None:
        """Whatever is or will be added counts as infinitely old until it is committed."""
        self._added_since = float("-inf")

    def take_committed(self) -> list[Handover]:
        """A commit covers everything that is added: let go of it, and return it."""
        committed = list(self._added)
        self._clear_added()
        return committed

    def return_uncommitted(self, shard: str, next_offset: int) -> list[Handover]:
        """The disk turned out to be at `next_offset`: what lies behind it waits to be added again.

        Returns the added handovers that are committed after all.
        """
        kept = [one for one in (*self._added, *self._waiting) if one.delta.next_offset > next_offset]
        if kept and kept[0].delta.from_offset != next_offset:
            raise ConsumerFault(f"{shard}: the disk is at {next_offset}, where no handover begins")
        committed = [one for one in self._added if one.delta.next_offset <= next_offset]
        self._clear_added()
        self._waiting = deque(kept)
        self.waiting_bytes = sum(one.size_bytes for one in kept)
        return committed

    def _clear_added(self) -> None:
        self._added.clear()
        self.added_bytes = 0
        self._added_since = None
