"""The processors that a part of a measurement runs on, and who goes first there."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from service.process.event_loop import set_timer_slack, take_short_turns


def own_core() -> tuple[frozenset[int], frozenset[int]]:
    """Return one processor for the measured process and those for all others.

    With a single processor both are that one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return frozenset(allowed[-1:]), frozenset(allowed[:-1] or allowed)


@contextmanager
def started_on(cores: Collection[int]) -> Iterator[None]:
    """Meanwhile this thread runs on these processors, and so does whatever it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def short_turns() -> Iterator[None]:
    """Meanwhile threads take turns as they do in a service: this one and those that it starts."""
    before = sys.getswitchinterval()
    take_short_turns()
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        set_timer_slack(0)  # or services that other figures start would have it too


def go_first() -> bool:
    """Let this thread run before all others of its processors. Return whether the system allows it.

    Clients of a service often run on other machines. Where they share processors with other parts of
    a measurement, they would also wait for their turn, and count that as time that the service takes.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except PermissionError:
        return False
    return True
