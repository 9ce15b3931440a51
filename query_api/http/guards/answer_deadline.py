"""The time within which a request is answered, whatever it waits for."""

from __future__ import annotations

import asyncio
from types import TracebackType

from query_api.errors import ApiError


class AnswerDeadline:
    """Cancels the work of the current task after some seconds; the request is then a 503.

    Not `asyncio.wait_for`, which would begin a task for each request. A thread that works for the request
    goes on to its end.
    """

    __slots__ = ("_has_passed", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_passed = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._pass)

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._timer.cancel()
        if self._has_passed and kind is asyncio.CancelledError:
            if hasattr(self._task, "uncancel"):  # from Python 3.11 on
                self._task.uncancel()
            message = f"the request was not answered within {self._seconds:g} s"
            raise ApiError("not_answered_in_time", message, headers={"Retry-After": "5"}) from None

    def _pass(self) -> None:
        self._has_passed = True
        self._task.cancel()
