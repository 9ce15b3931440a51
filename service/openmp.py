"""How the threads of OpenMP wait for their next piece of work. torch computes with them."""

from __future__ import annotations

from collections.abc import MutableMapping
from types import MappingProxyType

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PASSIVE = MappingProxyType({"OMP_WAIT_POLICY": "PASSIVE"})
"""Sleep at once. Spinning threads take the processors from decoding and commits, which run beside them."""
BRIEF = MappingProxyType({"GOMP_SPINCOUNT": "10000"})
"""Spin for some microseconds. A single text is a hundred short pieces of work: threads that slept between
them took 14 ms for it, and those that spin 9 ms. Without a bound they took 8 ms on a quiet machine, and 48 ms
of five times as much CPU time on a busy one. The GNU library spins for a hundredth of that where it has more
threads than processors, so it does as soon as a second thread has computed with torch."""


def choose_waiting(environment: MutableMapping[str, str], choice: MappingProxyType[str, str]) -> None:
    """Choose how threads wait, unless the operator has chosen. Call it before torch is imported."""
    if not any(name in environment for name in _CHOICES):
        environment.update(choice)
