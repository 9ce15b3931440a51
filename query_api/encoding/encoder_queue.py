"""How queries wait for the encoder: in which order they are encoded, and when the next batch starts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class EncoderQueue(Generic[ItemT]):
    """Contents that wait, each with the number of rows that the encoder makes of it.

    Texts of several windows and pictures of several crops have a queue of their own. There a text that fits
    the batch passes the texts that do not fit, and a batch takes at most one of those. So a request of
    thousands of windows delays the others by one text at a time, and later requests do not delay it for ever.
    """

    def __init__(self) -> None:
        self._single: deque[ItemT] = deque()
        self._long: deque[tuple[ItemT, int]] = deque()

    def __len__(self) -> int:
        return len(self._single) + len(self._long)

    def put(self, item: ItemT, num_rows: int) -> None:
        if num_rows == 1:
            self._single.append(item)
        else:
            self._long.append((item, num_rows))

    def take(self, max_rows: int) -> list[ItemT]:
        """Take the next batch: up to `max_rows` rows from each queue, and one text that has more."""
        taken = [self._single.popleft() for _ in range(min(len(self._single), max_rows))]
        room, has_one_beyond = max_rows, False
        for _ in range(len(self._long)):
            item, num_rows = self._long.popleft()
            if num_rows <= room:
                taken.append(item)
                room -= num_rows
            elif not has_one_beyond:
                taken.append(item)
                has_one_beyond = True
            else:
                # Put back at the end. Every waiting item goes round exactly once, so the order is kept.
                self._long.append((item, num_rows))
        return taken


@dataclass(frozen=True, slots=True)
class BatchPause:
    """The pause after a batch of several queries, in which the clients of that batch ask again.

    There are two reasons. The searches of the last batch are using the cores, so encoding now slows
    both. And those clients are about to ask again, and one large batch costs far less than two small ones.
    The pause lasts at most as long as the last batch took. After a single query there is no pause.
    """

    num_expected: int = 0
    until: float = 0.0

    @classmethod
    def after(
        cls, num_encoded: int, num_waiting: int, *, began: float, ended: float, max_seconds: float
    ) -> BatchPause:
        """`num_waiting` queries came while a batch of `num_encoded` was encoded. Times are in seconds."""
        if num_encoded < 2:
            return cls()
        return cls(num_encoded + num_waiting, ended + min(ended - began, max_seconds))

    def is_over(self, num_waiting: int, now: float, *, is_quiet: bool) -> bool:
        """Whether to start. `is_quiet` means that no work is under way from which a query could come."""
        return is_quiet or now >= self.until or num_waiting >= self.num_expected
