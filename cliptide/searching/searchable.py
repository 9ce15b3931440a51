"""Waits until published contents are searchable, by their offsets, and looks each of them up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from cliptide.searching.query_client import IndexState, QueryServiceAway
from event_log.records import Delivery

NUM_LOOKUPS_AT_ONCE = 8


class NotSearchableInTime(Exception):
    """Some shards did not reach the wanted offsets in time: `missing` is shard → (reached, wanted)."""

    def __init__(self, missing: Mapping[str, tuple[int, int]]) -> None:
        shards = ", ".join(
            f"{shard} at {reached} of {wanted}" for shard, (reached, wanted) in missing.items()
        )
        super().__init__(f"not searchable in time: {shards}")
        self.missing = missing


class IndexView(Protocol):
    """The part of a query client that waiting needs."""

    def index(self) -> IndexState: ...

    def content(self, content_id: str) -> dict[str, Any] | None: ...


def shard_of(delivery: Delivery) -> str:
    return f"{delivery.topic}-{delivery.partition}"


def wanted_offsets(
    deliveries: Iterable[Delivery], earlier: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return for each shard the next offset that covers all of its deliveries and the `earlier` offsets."""
    wanted = dict(earlier or {})
    for delivery in deliveries:
        shard = shard_of(delivery)
        wanted[shard] = max(wanted.get(shard, 0), delivery.next_offset)
    return wanted


def missing_offsets(wanted: Mapping[str, int], reached: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the shards that have not reached their wanted offset: shard → (reached, wanted)."""
    return {
        shard: (reached.get(shard, 0), offset)
        for shard, offset in wanted.items()
        if reached.get(shard, 0) < offset
    }


def wait_until_covered(
    view: IndexView,
    wanted: Mapping[str, int],
    *,
    timeout_seconds: float,
    poll_seconds: float = 0.1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as every shard covers its wanted offset.

    Raises `NotSearchableInTime` after the timeout, or `QueryServiceAway` if the service is away then.
    """
    deadline = clock() + timeout_seconds
    while True:
        is_late = clock() >= deadline
        try:
            missing = missing_offsets(wanted, view.index().next_offsets)
        except QueryServiceAway:
            if is_late:
                raise
        else:
            if not missing:
                return
            if is_late:
                raise NotSearchableInTime(missing)
        sleep(poll_seconds)


def find_missing(view: IndexView, content_ids: Iterable[str]) -> Iterator[str]:
    """Look every content up, a few at once, and yield the ids that the index does not have."""
    ids = list(content_ids)
    with ThreadPoolExecutor(NUM_LOOKUPS_AT_ONCE, thread_name_prefix="lookup") as pool:
        for content_id, content in zip(ids, pool.map(view.content, ids), strict=True):
            if content is None:
                yield content_id
