"""A queue in which no caller stands before the others because it has sent more."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

from query_api.serving.shares import leaves_the_last_quarter

Turn: TypeAlias = "asyncio.Future[None]"


class FairQueue:
    """`max_queued` requests of all callers. The last quarter is for callers that queue with few.

    One caller's requests are called in the order in which they came. Among the callers, the one that
    holds the fewest slots is called first, and of equals the one that has not been called for longest.
    """

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._turns: dict[str, deque[Turn]] = {}
        self._num_queued: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._num_queued.total()

    def has_room_for(self, caller: str) -> bool:
        return leaves_the_last_quarter(self._max_queued, self._num_queued, caller)

    def join(self, caller: str) -> Turn:
        """Stand at the end of the caller's requests; return what is done when the request is called."""
        turn: Turn = asyncio.get_running_loop().create_future()
        self._turns.setdefault(caller, deque()).append(turn)
        self._num_queued[caller] += 1
        return turn

    def leave(self, caller: str, turn: Turn) -> None:
        """Take out a request that has not been called."""
        self._turns[caller].remove(turn)
        self._forget_one(caller)

    def next_caller(self, may_begin: Callable[[str], bool], held: Mapping[str, int]) -> str | None:
        """Return the caller whose request is to be called next; None if no caller may begin.

        Only the caller that holds the fewest is asked about: if it may not begin, no other may.
        """
        first = min(self._turns, key=lambda caller: held.get(caller, 0), default=None)
        return first if first is not None and may_begin(first) else None

    def call(self, caller: str) -> None:
        """Call the caller's first request. The caller itself goes to the end of the callers."""
        self._turns[caller].popleft().set_result(None)
        turns = self._turns.pop(caller)
        self._turns[caller] = turns
        self._forget_one(caller)

    def _forget_one(self, caller: str) -> None:
        self._num_queued[caller] -= 1
        if not self._num_queued[caller]:
            del self._turns[caller], self._num_queued[caller]
