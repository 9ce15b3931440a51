"""A sample of an index's contents, the same for the same generations."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.reading.searcher import Searcher
from clip_index.reading.segment_view import SegmentView
from clip_index.reading.snapshot import Location


def sample_contents(searcher: Searcher, modality: Modality, num_contents: int) -> list[Location]:
    """Draw live contents of a modality, each at most once and all with the same chance.

    Fewer only where fewer exist.
    """
    views = [(shard.name, view) for shard in searcher.shard_views for view in shard.segments]
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
