"""Which contents a new searcher shows that the former one did not: for measuring freshness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clip_index.searcher import Searcher, ShardView


def occurrence_times_of_newcomers(former: Searcher, searcher: Searcher) -> NDArray[np.int64]:
    """Return `occurred_at_ms` (ms since 1970) of every row beyond the former's next offsets, shape (n,)."""
    next_offsets = {name: snapshot.next_offset for name, snapshot in former.shards.items()}
    times = [_times_beyond(shard, next_offsets.get(shard.name, 0)) for shard in searcher.shard_views]
    return np.concatenate([np.empty(0, np.int64), *times])


def _times_beyond(shard: ShardView, next_offset: int) -> NDArray[np.int64]:
    if shard.snapshot.next_offset <= next_offset:
        return np.empty(0, np.int64)
    parts = [np.empty(0, np.int64)]
    for view in shard.segments:
        offsets = np.asarray(view.segment.contents.column("offset"))
        parts.append(np.asarray(view.segment.contents.column("occurred_at_ms"))[offsets >= next_offset])
    return np.concatenate(parts)
