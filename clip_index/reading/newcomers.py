"""The contents that a searcher shows and its predecessor did not: their age measures freshness."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clip_index.reading.snapshot import ShardView


def occurrence_times_of_newcomers(
    former: Iterable[ShardView], shards: Iterable[ShardView]
) -> NDArray[np.int64]:
    """Return `occurred_at_ms` (ms since 1970) of every row from `former`'s next offsets on, shape (n,)."""
    known = {shard.name: shard for shard in former}
    times = [_times_beyond(shard, known.get(shard.name)) for shard in shards]
    return np.concatenate([np.empty(0, np.int64), *times])


def _times_beyond(shard: ShardView, former: ShardView | None) -> NDArray[np.int64]:
    """Skip the segments that `former` has: they hold nothing new, and they may be large."""
    next_offset = former.snapshot.next_offset if former else 0
    if shard.snapshot.next_offset <= next_offset:
        return np.empty(0, np.int64)
    known = {view.segment.segment_id for view in former.segments} if former else set()
    parts = [np.empty(0, np.int64)]
    for view in shard.segments:
        if view.segment.segment_id in known:
            continue
        offsets = np.asarray(view.segment.contents.column("offset"))
        parts.append(np.asarray(view.segment.contents.column("occurred_at_ms"))[offsets >= next_offset])
    return np.concatenate(parts)
