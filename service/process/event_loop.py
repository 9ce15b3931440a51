"""The event loop of a service: uvloop's if it is installed, else asyncio's own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import struct
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

TURN_SECONDS = 0.0001
"""How long a thread that computes in Python makes the event loop wait for its turn. Python's own is 5 ms.

A query gives its turn away at each of some 200 steps of its encoding, and at several of its search. With
5 ms, the p99 of queries was 2.1 to 2.6 times that of an idle index while 500 vectors a second were taken in,
and with 0.5 ms 1.85 times. With 0.5 ms, a query at the beginning of a load of a model took up to 0.2 s.
"""
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_SLACK_NANOSECONDS = 1_000
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # Linux's numbers of the call, which libc hardly ever has
_SCHED_ATTR = "=IIQiIQQQ"  # struct sched_attr of linux/sched/types.h in its first version
_RESET_ON_FORK = 0x01  # linux/sched.h
_SLICE_NANOSECONDS = 100_000  # the least that Linux takes
_BEHIND = 10  # in niceness: a tenth of a processor, if another thread wants the rest


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run until `main` is done, as `asyncio.run` does, on uvloop where the operator has installed it.

    Threads beside the loop, such as one that takes in a new generation, give their turns away soon, and the
    loop interrupts them where it shares a processor with them.
    """
    take_short_turns()
    take_short_slices()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    uvloop.run(main)


def take_short_turns() -> None:
    """Let threads of this process give their turns away soon, to this thread and those that it starts.

    A thread that waits for its turn sets a timer. Linux lets timers be late by 50 µs, and by more where a
    thread asks for it, so that it wakes up less often; here that would be half a turn more.
    """
    sys.setswitchinterval(TURN_SECONDS)
    set_timer_slack(_SLACK_NANOSECONDS)


def take_short_slices() -> None:
    """Let this thread interrupt others of its processor as soon as it has work, on Linux 6.12 and newer.

    Linux lets a thread go on for about a millisecond before it gives the processor to one that has woken up,
    unless the latter asks for shorter slices. Threads that this one starts have the usual ones.
    """
    set_slice(_SLICE_NANOSECONDS)


def set_slice(nanoseconds: int) -> None:
    """Set how long this thread runs before others of its processor have their turn; 0 stands for the usual.

    Threads that it starts have the usual one. Without effect where the system does not know this.
    """
    if sys.platform != "linux":
        return
    number, policy = (
        _SCHED_SETATTR.get(platform.machine()),
        os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK,
    )
    if number is None or policy != os.SCHED_OTHER:
        return
    niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    size = struct.calcsize(_SCHED_ATTR)
    attributes = struct.pack(_SCHED_ATTR, size, policy, _RESET_ON_FORK, niceness, 0, nanoseconds, 0, 0)
    ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, attributes, ctypes.c_uint(0))


def set_timer_slack(nanoseconds: int) -> None:
    """Let timers of this thread, and of what it starts, be so late on Linux; 0 stands for the usual 50 µs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(nanoseconds))


def go_behind_the_loop() -> None:
    """Let other threads go first where they share a processor with this one, on Linux.

    Otherwise Linux lets a thread that has rested, such as one that reloads now and then, run for up to 4 ms
    before the loop, which has worked meanwhile. Where other threads fill all processors, this one takes
    longer (a reload 0.2 s, where it took 0.05), and the loop waits for Python's lock no longer than before.
    Threads that this one starts have its priority.
    """
    if sys.platform != "linux":
        return  # a thread's number may be that of another process
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + _BEHIND
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
