"""Who waits for the encoder, and who goes next."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class EncoderQueue(Generic[ItemT]):
    """Contents that wait, each with the rows that the encoder makes of it: a text has one per window.

    Texts of several windows have a line of their own. Of it every batch takes the first, however
    long, and more only where the others leave room: thousands of windows of one request hold
    nobody else up for longer than one text's, nor do those who come meanwhile hold up the request.
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
        """Take the next batch: up to `max_rows` rows, beyond which goes only the first long text."""
        taken = [self._single.popleft() for _ in range(min(len(self._single), max_rows))]
        room = max_rows - len(taken)
        is_first = True
        while self._long and (is_first or self._long[0][1] <= room):
            item, num_rows = self._long.popleft()
            taken.append(item)
            room -= num_rows
            is_first = False
        return taken
