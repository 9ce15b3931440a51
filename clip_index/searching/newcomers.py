"""The contents that a searcher shows and its predecessor did not: their age measures freshness."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.views.snapshot import ShardView


def occurrence_times_of_newcomers(
    former: Iterable[ShardView], shards: Iterable[ShardView]
) -> NDArray[np.int64]:
    """Return when every row from `former`'s next offsets on occurred, or was patched, shape (n,).

    Times are ms since 1970.
    """
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
        contents = view.segment.contents
        times = pc.coalesce(contents.column("patched_at_ms"), contents.column("occurred_at_ms"))
        parts.append(np.asarray(times)[np.asarray(contents.column("offset")) >= next_offset])
    return np.concatenate(parts)
