"""Who waits for the encoder, and who goes next."""

from __future__ import annotations

from collections import deque
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
