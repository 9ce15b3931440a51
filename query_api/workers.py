"""Threads for blocking work that know how much of it is under way."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Workers:
    """A fixed number of threads that work for one event loop while their context lasts.

    Nearly every request goes to a thread and back. Executors take their threads in turn and put a
    second future with locks of its own between; here the thread that was free last, whose memory is
    still in a cache, gets the call itself, and gives the outcome straight to the loop.
    """

    def __init__(self, num_threads: int) -> None:
        self._threads = [
            threading.Thread(target=self._work, args=[SimpleQueue()], name=f"worker_{number}")
            for number in range(num_threads)
        ]
        self._lock = threading.Lock()
        self._free: list[_Mailbox] = []
        self._waiting: deque[_Call[Any] | None] = deque()
        self._num_busy = 0
        self._is_open = False

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        self._is_open = True
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Finish what was handed over, and end the threads."""
        self._is_open = False
        for _thread in self._threads:
            self._hand_over(None)
        for thread in self._threads:
            thread.join()

    @property
    def is_busy(self) -> bool:
        """Whether anything was handed over whose outcome the loop does not know yet."""
        return self._num_busy > 0

    def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Make a call in a thread; for the loop's own thread.

        It is not made if the future is cancelled before a thread is free. `RuntimeError` outside the
        context.
        """
        if not self._is_open:
            raise RuntimeError("the workers are not running")
        handed = _Call(partial(call, *args, **kwargs) if args or kwargs else call, self._count_done)
        self._num_busy += 1
        self._hand_over(handed)
        return handed.future

    def _count_done(self) -> None:
        self._num_busy -= 1

    def _hand_over(self, call: _Call[Any] | None) -> None:
        with self._lock:
            if self._free:
                self._free.pop().put(call)
            else:
                self._waiting.append(call)

    def _work(self, mailbox: _Mailbox) -> None:
        self._await_call(mailbox)
        while self._make_next_call(mailbox):
            pass

    def _make_next_call(self, mailbox: _Mailbox) -> bool:
        """Return False at the end; a thread that waits holds nothing of the call that it made last."""
        call = mailbox.get()
        if call is None:
            return False
        call.make()
        self._await_call(mailbox)  # first: the loop may hand over the next before `tell` returns
        call.tell()
        return True

    def _await_call(self, mailbox: _Mailbox) -> None:
        """Let the call that has waited longest, or else the next one, come into the mailbox."""
        with self._lock:
            if self._waiting:
                mailbox.put(self._waiting.popleft())
            else:
                self._free.append(mailbox)


class _Call(Generic[_T]):
    """What a thread is to do, and the future that the loop waits for."""

    __slots__ = ("_call", "_count_done", "_error", "_loop", "_result", "future")

    def __init__(self, call: Callable[[], _T], count_done: Callable[[], None]) -> None:
        self._call = call
        self._count_done = count_done
        self._loop = asyncio.get_running_loop()
        self._error: BaseException | None = None
        self.future: asyncio.Future[_T] = self._loop.create_future()

    def make(self) -> None:
        if self.future.cancelled():
            return
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is raised where it is waited for)
            self._error = error

    def tell(self) -> None:
        self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._count_done()
        error, self._error = self._error, None  # its traceback refers to this call
        if self.future.done():  # whoever waited went away
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self._result)


_Mailbox: TypeAlias = "SimpleQueue[_Call[Any] | None]"
