"""The processors that a part of a measurement runs on; whatever a thread starts inherits them from it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def own_core() -> tuple[frozenset[int], frozenset[int]]:
    """Return one processor for the measured process and those for all others.

    With a single processor both are that one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return frozenset(allowed[-1:]), frozenset(allowed[:-1] or allowed)


@contextmanager
def started_on(cores: Collection[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs on these processors, and so does this thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
