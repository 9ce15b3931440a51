"""Whether a consumer seems to be writing to a shard, judged by the files that it renews there."""

from __future__ import annotations

import time

from clip_index.generations.watermark import FILE_NAME as WATERMARK
from clip_index.storage.shard_store import ShardStore
from consumer.quarantine.inflight import FILE_NAME as IN_FLIGHT

ALIVE_WITHIN_SECONDS = 10.0
_LOOKS = 4


def alive_within_seconds(store: ShardStore) -> float:
    """Return the age of its latest sign up to which a consumer seems alive. In a bucket signs are rarer."""
    return ALIVE_WITHIN_SECONDS + _LOOKS * store.look_every_seconds


def seems_alive(store: ShardStore, now: float) -> bool:
    """Whether a consumer has renewed its watermark or its list of records in flight a moment ago.

    A consumer renews one of the two every second, unless it waits for its disk or for a reference: then
    it seems dead. `now` is the time of the clock that stamps files.
    """
    times = store.list_times()
    seconds = alive_within_seconds(store)
    return any(now - times[name] < seconds for name in (WATERMARK, IN_FLIGHT) if name in times)


def shows_life(store: ShardStore) -> bool:
    """Whether a consumer seems to be writing to a shard now."""
    return seems_alive(store, time.time() + store.seconds_ahead())
