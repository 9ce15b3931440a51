"""A random sample of contents. The same generations give the same sample."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import Location, ShardView


def sample_contents(shards: Iterable[ShardView], modality: Modality, num_contents: int) -> list[Location]:
    """Draw live contents of a modality without repetition, each with the same chance.

    Return fewer than `num_contents` only if fewer exist.
    """
    views = [(shard.name, view) for shard in shards for view in shard.segments]
    ends = np.cumsum([view.num_live[modality] for _, view in views])
    num_live = int(ends[-1]) if len(ends) else 0
    chosen = np.sort(random.Random(num_live).sample(range(num_live), min(num_contents, num_live)))
    sampled = []
    for (shard, view), start, end in zip(views, [0, *ends], ends, strict=False):
        inside = chosen[(chosen >= start) & (chosen < end)] - start
        if len(inside):
            rows = _live_rows(view, modality)[inside].tolist()
            sampled += [Location(shard, view, row) for row in rows]
    return sampled


def _live_rows(view: SegmentView, modality: Modality) -> NDArray[np.int64]:
    is_wanted = view.segment.is_image == (modality == "image")
    return np.flatnonzero(view.eligible_rows(None) & is_wanted)
