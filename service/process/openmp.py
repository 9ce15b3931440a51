"""How the threads of OpenMP wait for their next piece of work. torch computes with them."""

from __future__ import annotations

from collections.abc import MutableMapping
from types import MappingProxyType

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PASSIVE = MappingProxyType({"OMP_WAIT_POLICY": "PASSIVE"})
"""Sleep at once. A single text is a hundred short pieces of work, and threads that spin between them find
the next piece sooner. But they take the processors from whoever works beside them: on two busy cores a text
of 13 ms took 214 ms and four times the CPU time with `GOMP_SPINCOUNT=10000`. Where one thread has loaded the
model and another encodes, as in the services, the GNU library counts the pools of both. It has more threads
than processors then and spins for a hundredth of what it is told, so spinning would gain nothing."""


def choose_waiting(environment: MutableMapping[str, str]) -> None:
    """Let threads sleep while they wait, unless the operator has chosen. Call it before torch is imported."""
    if not any(name in environment for name in _CHOICES):
        environment.update(PASSIVE)
