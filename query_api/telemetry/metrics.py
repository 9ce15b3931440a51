"""The query service's metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from clip_index.content import MODALITIES

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FRESHNESS_SECONDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)

ChildT = TypeVar("ChildT")


class Metrics:
    """The metrics of one process, in the registry that they are given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._build_requests(registry)
        self._build_connections(registry)
        self._build_encoding(registry)
        self._build_index(registry)
        self._build_recall(registry)
        self._build_drift(registry)
        self._build_shards(registry)
        self._requests_of = _Children(self.requests.labels)
        self._request_seconds_of = _Children(self.request_seconds.labels)
        self._stage_seconds_of = _Children(self.stage_seconds.labels)

    def _build_requests(self, registry: CollectorRegistry) -> None:
        """What is asked, and how long answers take."""
        self.requests = Counter(
            "cliptide_query_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "cliptide_query_stage_seconds",
            "Time spent in each stage of a request.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.request_seconds = Histogram(
            "cliptide_query_request_seconds",
            "Time from the arrival of a request's headers to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )

    def _build_connections(self, registry: CollectorRegistry) -> None:
        self.open_connections = Gauge(
            "cliptide_query_open_connections",
            "Open connections.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.connections = Counter(
            "cliptide_query_connections",
            "Connections by outcome: accepted, refused (none was free), displaced (closed for a newcomer).",
            ["status"],
            registry=registry,
        )

    def _build_encoding(self, registry: CollectorRegistry) -> None:
        self.text_cache_lookups = Counter(
            "cliptide_query_text_cache_lookups",
            "Query texts whose embedding was cached (hit), being computed (joined) or neither (miss).",
            ["status"],
            registry=registry,
        )
        self.encoded_batch_size = Histogram(
            "cliptide_query_encoded_batch_size",
            "Queries encoded in one batch.",
            buckets=_BATCH_SIZES,
            registry=registry,
        )

        self.encoder_queue_length = Gauge(
            "cliptide_query_encoder_queue_length",
            "Queries that wait for the encoder.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def _build_index(self, registry: CollectorRegistry) -> None:
        """What is served, and how fresh it is."""
        self.reloads = Counter(
            "cliptide_query_reloads",
            "Reloads of the index by outcome: reloaded, unchanged, missing, refused, damaged, failed.",
            ["status"],
            registry=registry,
        )
        self.scrubbed_files = Counter(
            "cliptide_query_scrubbed_files",
            "Checks of served files against their digests by outcome: good, damaged, mended, gone,",
            ["status"],
            registry=registry,
        )
        self.searchable_after_event = Histogram(
            "cliptide_searchable_after_event_seconds",
            "Time from an upload's occurred_at until a search here finds it.",
            buckets=_FRESHNESS_SECONDS,
            registry=registry,
        )
        self.ready = Gauge(
            "cliptide_query_ready",
            "1 while there is an index to search and the reload loop does not hang. The encoder is not tried "
            "for it. With several processes, the least value.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.seconds_looking = Gauge(
            "cliptide_query_index_look_seconds",
            "How long the present look for new generations has lasted. With several processes, the longest.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.index_info = Gauge(
            "cliptide_query_index_info",
            "1 for the index that is served, with the short fingerprint of its model. With several "
            "processes, one series for each index that any of them serves.",
            ["index", "fingerprint"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.index_swaps = Counter(
            "cliptide_query_index_swaps",
            "Attempts to serve the index that the root names by outcome: swapped, failed.",
            ["status"],
            registry=registry,
        )
        for outcome in ("swapped", "failed"):
            self.index_swaps.labels(outcome)  # starts at zero, so that an alert sees the first step

    def _build_recall(self, registry: CollectorRegistry) -> None:
        """How much of the true answers queries get."""
        self.recall_at_k = Gauge(
            "cliptide_query_recall_at_k",
            "Share of the true k best contents that were answered, over the queries that were compared with "
            "an exact search last. With several processes, the least.",
            ["modality"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.recall_queries = Counter(
            "cliptide_query_recall_queries",
            "Rankings of live queries that were compared with an exact search.",
            ["modality"],
            registry=registry,
        )
        self.recall_hits = Counter(
            "cliptide_query_recall_hits",
            "The true k best contents of these rankings by whether they were answered: found, missed.",
            ["modality", "status"],
            registry=registry,
        )

    def _build_drift(self, registry: CollectorRegistry) -> None:
        """Whether the encoder still fits the index."""
        self.canary_cosine = Gauge(
            "cliptide_query_canary_cosine",
            "Least cosine of the index's canaries, as they are encoded now, with those that the index keeps. "
            "With several processes, the least.",
            ["modality"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.encoder_drifted = Gauge(
            "cliptide_query_encoder_drifted",
            "1 while the encoder encodes the index's canaries otherwise than they are kept, else 0.",
            multiprocess_mode="livemax",
            registry=registry,
        )

    def count_recall(self, modality: str, num_found: int, num_wanted: int) -> None:
        """Count a ranking that was compared."""
        self.recall_queries.labels(modality).inc()
        self.recall_hits.labels(modality, "found").inc(num_found)
        self.recall_hits.labels(modality, "missed").inc(num_wanted - num_found)

    def _build_shards(self, registry: CollectorRegistry) -> None:
        self.searcher_generation = Gauge(
            "cliptide_query_searcher_generation",
            "Generation that is served. With several processes, the oldest.",
            ["shard"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.shard_damaged = Gauge(
            "cliptide_query_shard_damaged",
            "1 while the newest generation of a shard is damaged and an older one is served, else 0.",
            ["shard"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.searcher_next_offset = Gauge(
            "cliptide_query_searcher_next_offset",
            "Offset below which every record is searchable. With several processes, the least.",
            ["shard"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.watermark_age_seconds = Gauge(
            "cliptide_query_watermark_age_seconds",
            "Age of the watermark. Every record older than this is searchable.",
            ["shard"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.contents = Gauge(
            "cliptide_query_contents",
            "Contents that are served. With several processes, the least.",
            ["shard", "modality"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.index_bytes = Gauge(
            "cliptide_query_index_bytes",
            "Bytes of the files that are served. With several processes, the most.",
            ["shard"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.segments = Gauge(
            "cliptide_query_segments",
            "Segments that are served. With several processes, the most.",
            ["shard"],
            multiprocess_mode="livemax",
            registry=registry,
        )

    def forget_shard(self, shard: str) -> None:
        """Stop exporting a shard that is no longer in the index."""
        for gauge in (
            self.searcher_generation,
            self.shard_damaged,
            self.searcher_next_offset,
            self.index_bytes,
            self.segments,
            self.watermark_age_seconds,
        ):
            remove_series(gauge, shard)
        for modality in MODALITIES:
            remove_series(self.contents, shard, modality)

    def forget_index(self, index_id: str, fingerprint: str) -> None:
        """Stop exporting an index that is no longer served."""
        remove_series(self.index_info, index_id, fingerprint)

    def count_answer(self, labels: tuple[str, str, str], seconds: float, stages: Mapping[str, float]) -> None:
        """Count an answer by method, route and status, the seconds it took and those of its stages."""
        self._requests_of[labels].inc()
        self._request_seconds_of[labels[1:2]].observe(seconds)
        for stage, spent in stages.items():
            self._stage_seconds_of[(stage,)].observe(spent)


def remove_series(gauge: Gauge, *labels: str) -> None:
    """Stop exporting one series of a gauge.

    Series in the files of several processes cannot be removed. They become NaN, which a scrape leaves out.
    """
    if values.ValueClass._multiprocess:
        gauge.labels(*labels).set(math.nan)
    else:
        gauge.remove(*labels)


METRICS = web.AppKey("metrics", Metrics)


class _Children(dict[tuple[str, ...], ChildT], Generic[ChildT]):
    """A metric's children by their labels.

    They are kept here because looking a child up in prometheus_client costs more than counting.
    """

    def __init__(self, labels: Callable[..., ChildT]) -> None:
        super().__init__()
        self._labels = labels

    def __missing__(self, labels: tuple[str, ...]) -> ChildT:
        child = self[labels] = self._labels(*labels)
        return child
