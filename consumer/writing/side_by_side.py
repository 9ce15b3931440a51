"""Commits of several shards at once, because nearly all of a commit waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

MOST_AT_ONCE = 8


class SideBySide:
    """Runs actions that share nothing, and waits until all of them have ended. Used by one thread.

    Whoever waits does nothing else meanwhile. So the actions need no lock against the waiting thread.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="commit")

    def run(self, actions: Sequence[Callable[[], object]]) -> list[BaseException | None]:
        """Return the error that each action raised, or None. One error keeps no other action from ending."""
        if len(actions) == 1:
            return [_error_of(actions[0])]
        futures = [self._threads.submit(action) for action in actions]
        return [future.exception() for future in futures]

    def close(self) -> None:
        self._threads.shutdown()


def _error_of(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the caller raises it where it handles errors
        return error
    return None
