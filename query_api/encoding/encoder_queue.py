"""Who waits for the encoder, and who goes next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class EncoderQueue(Generic[ItemT]):
    """Contents that wait, each with the rows that the encoder makes of it: a text has one per window.

    Texts of several windows have a line of their own, in which those pass that fit a batch; the
    first that does not fit goes with them, one in a batch. So thousands of windows of one request
    hold nobody else up for longer than one text's, nor do those who come meanwhile hold it up.
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
        """Take the next batch: of each line up to `max_rows` rows, and one text that has more."""
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
                self._long.append((item, num_rows))  # once around, so that the order stays
        return taken


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
