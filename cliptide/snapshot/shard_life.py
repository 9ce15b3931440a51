"""Whether somebody seems to be writing to a shard, from what a consumer renews there."""

from __future__ import annotations

from clip_index.generations.watermark import FILE_NAME as WATERMARK
from clip_index.storage.shard_store import ShardStore
from consumer.quarantine.inflight import FILE_NAME as IN_FLIGHT

ALIVE_WITHIN_SECONDS = 10.0


def seems_alive(store: ShardStore, now: float) -> bool:
    """A consumer renews its watermark each second, or names what it reads; `now` is of the same clock.

    One that waits (for its disk, for a reference) shows nothing.
    """
    times = store.list_times()
    return any(now - times[name] < ALIVE_WITHIN_SECONDS for name in (WATERMARK, IN_FLIGHT) if name in times)
