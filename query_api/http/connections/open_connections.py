"""How many connections a listener holds, and which one is closed when another needs its slot."""

from __future__ import annotations

import resource
from typing import Protocol

import structlog

from query_api.hosts import is_loopback
from query_api.telemetry.metrics import Metrics

log = structlog.get_logger()
SHARE_OF_FILES = 4  # a quarter of a process's open files may be connections; the index needs the others


class Holder(Protocol):
    """A connection, as the one that holds a slot."""

    @property
    def waits_since(self) -> float | None:
        """Since when (seconds of the loop's clock) it waits for a request; None while it answers one."""
        ...

    def force_close(self) -> None: ...


class OpenConnections:
    """The slots of one listener.

    When no slot is free, the connection that has waited longest for a request is closed for
    the newcomer, whether it is idle or sends its headers slowly. If all connections are
    answering requests, the newcomer is refused. Clients on this machine have `num_reserved`
    more slots, so that health checks get through.
    """

    def __init__(self, max_connections: int, num_reserved: int, metrics: Metrics | None = None) -> None:
        self._max_connections = max_connections
        self._num_reserved = num_reserved
        self._metrics = metrics
        self._held: dict[Holder, None] = {}  # the first one goes where times are equal
        self.are_closing = False  # the service stops: each connection ends with its request

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, connection: Holder, peer_host: str) -> bool:
        """Give a connection a slot; return False if it must be refused."""
        num_slots = self._max_connections + (self._num_reserved if is_loopback(peer_host) else 0)
        if len(self._held) >= num_slots and not self._displace_one():
            self._count("refused")
            return False
        self._held[connection] = None
        self._count("accepted")
        return True

    def release(self, connection: Holder) -> None:
        self._held.pop(connection, None)
        self._set_gauge()

    def _displace_one(self) -> bool:
        waiting = [(since, one) for one in self._held if (since := one.waits_since) is not None]
        if not waiting:
            return False
        _, longest = min(waiting, key=lambda pair: pair[0])
        self._held.pop(longest, None)
        longest.force_close()
        self._count("displaced")
        return True

    def _count(self, status: str) -> None:
        if self._metrics is not None:
            self._metrics.connections.labels(status).inc()
        self._set_gauge()

    def _set_gauge(self) -> None:
        if self._metrics is not None:
            self._metrics.open_connections.set(len(self._held))


def bound_connections(wanted: int) -> int:
    """Raise this process's limit of open files to the highest allowed; return how many connections fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or wanted * SHARE_OF_FILES <= hard:
        return wanted
    bound = max(1, hard // SHARE_OF_FILES)
    log.warning("fewer connections than configured: the limit of open files is low", bound=bound, files=hard)
    return bound
