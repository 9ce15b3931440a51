"""What the metrics show of the index that is served."""

from __future__ import annotations

import time

import numpy as np

from clip_index.content import MODALITIES
from query_api.serving.engine import Snapshot
from query_api.telemetry.metrics import Metrics, remove_series
from schemas.validation import EARLIEST

_NO_TIME_MS = EARLIEST.timestamp() * 1000
"""The time of an upload without one: neither its event nor its record says when it occurred."""


def show_generations(metrics: Metrics, searcher: Snapshot, former: Snapshot | None = None) -> None:
    """Set the gauges of shards that are not as `former` had them; end those of shards that it alone had."""
    known = former.shards if former else {}
    for gone in known.keys() - searcher.shards.keys():
        metrics.forget_shard(gone)
    for name, shard in searcher.shards.items():
        if known.get(name) is shard:
            continue
        for modality in MODALITIES:
            metrics.contents.labels(name, modality).set(shard.num_contents.get(modality, 0))
        metrics.index_bytes.labels(name).set(shard.size_bytes)
        metrics.segments.labels(name).set(shard.num_segments)
        metrics.searcher_generation.labels(name).set(shard.generation)
        metrics.shard_damaged.labels(name).set(shard.damaged_generation is not None)
        metrics.searcher_next_offset.labels(name).set(shard.next_offset)


def show_watermark_ages(metrics: Metrics, searcher: Snapshot) -> None:
    """Set the gauges that grow with time."""
    for name, shard in searcher.shards.items():
        if shard.watermark_ms is None:  # of an index that was built again, and may have had one before
            remove_series(metrics.watermark_age_seconds, name)
        else:
            age = max(0.0, time.time() - shard.watermark_ms / 1000)
            metrics.watermark_age_seconds.labels(name).set(age)


def observe_newcomers(metrics: Metrics, former: Snapshot, searcher: Snapshot) -> None:
    """Observe for each content that is searchable now how long ago it was uploaded. Blocking.

    Not on the event loop: after a consumer has caught up there may be hundreds of thousands.
    """
    now_ms = time.time() * 1000
    occurred_at_ms = searcher.newcomers_since(former)
    ages = np.maximum(0.0, (now_ms - occurred_at_ms[occurred_at_ms > _NO_TIME_MS]) / 1000)
    for age in ages.tolist():
        metrics.searchable_after_event.observe(age)
