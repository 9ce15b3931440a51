"""A service runs on uvloop if it is installed, and on asyncio's own loop otherwise."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import struct
import sys
import threading
from collections.abc import Iterator

import pytest

from service.process.event_loop import (
    TURN_SECONDS,
    go_behind_the_loop,
    run_in_loop,
    set_slice,
    set_timer_slack,
    take_short_slices,
)

_PR_GET_TIMERSLACK = 30  # linux/prctl.h


@pytest.fixture(autouse=True)
def _usual_turns() -> Iterator[None]:
    usual = sys.getswitchinterval()
    yield
    sys.setswitchinterval(usual)
    set_timer_slack(0)
    set_slice(0)


def module_of_loop() -> str:
    """Run something, and return where the class of its event loop lives."""
    found: list[str] = []

    async def note() -> None:
        found.append(type(asyncio.get_running_loop()).__module__)

    run_in_loop(note())
    return found[0].partition(".")[0]


def test_uvloop_is_used_where_it_is_installed() -> None:
    assert module_of_loop() == "uvloop"


def test_the_loop_of_asyncio_is_used_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert module_of_loop() == "asyncio"


def test_what_goes_wrong_inside_reaches_the_caller() -> None:
    async def fail() -> None:
        raise ArithmeticError("inside")

    with pytest.raises(ArithmeticError, match="inside"):
        run_in_loop(fail())


def test_while_a_service_runs_other_threads_give_their_turns_away_soon() -> None:
    found: list[float] = []

    async def note() -> None:
        found.append(sys.getswitchinterval())

    run_in_loop(note())
    assert found == pytest.approx([TURN_SECONDS])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells how late timers may be")
def test_timers_of_the_loop_and_of_threads_that_it_starts_are_late_by_a_microsecond_at_most() -> None:
    found: list[int] = []

    def note_here() -> None:
        found.append(ctypes.CDLL(None).prctl(_PR_GET_TIMERSLACK))

    async def note() -> None:
        note_here()
        await asyncio.get_running_loop().run_in_executor(None, note_here)

    run_in_loop(note())
    assert found == [1_000, 1_000]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priorities of their own")
def test_a_thread_that_goes_behind_the_loop_has_a_lower_priority_than_all_others() -> None:
    before, found = os.getpriority(os.PRIO_PROCESS, 0), list[int]()

    def go_behind() -> None:
        go_behind_the_loop()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=go_behind)
    thread.start()
    thread.join()
    assert found == [min(before + 10, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_thread_goes_on_where_the_system_refuses_it_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    go_behind_the_loop()


_SCHED_GETATTR = 315  # on x86-64


def attributes_of_this_thread() -> tuple[int, int]:
    """Return its niceness, and its slice in nanoseconds."""
    attributes = ctypes.create_string_buffer(48)
    call = (ctypes.c_long(_SCHED_GETATTR), 0, attributes, ctypes.c_uint(48), ctypes.c_uint(0))
    assert ctypes.CDLL(None).syscall(*call) == 0
    _, _, _, niceness, _, slice_nanoseconds, _, _ = struct.unpack("=IIQiIQQQ", attributes.raw)
    return niceness, slice_nanoseconds


def has_slices() -> bool:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    major, minor = platform.release().split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)))) >= (6, 12)


@pytest.mark.skipif(not has_slices(), reason="Linux has slices of one thread since 6.12")
def test_the_loop_has_short_slices_and_the_threads_that_it_starts_do_not() -> None:
    niceness, usual = attributes_of_this_thread()
    found = []
    take_short_slices()
    thread = threading.Thread(target=lambda: found.append(attributes_of_this_thread()))
    thread.start()
    thread.join()
    assert attributes_of_this_thread() == (niceness, 100_000)
    assert found == [(niceness, usual)]
    set_slice(0)
    assert attributes_of_this_thread() == (niceness, usual)


@pytest.mark.skipif(not has_slices(), reason="Linux has slices of one thread since 6.12")
def test_where_the_number_of_the_call_is_not_known_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    before = attributes_of_this_thread()
    monkeypatch.setattr(platform, "machine", lambda: "another")
    take_short_slices()
    assert attributes_of_this_thread() == before
