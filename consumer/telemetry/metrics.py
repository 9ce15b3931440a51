"""The consumer's metrics. They are built once, with a registry of their own, and handed down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from clip_index.writing.erasure import ErasureBacklog
from consumer.telemetry.disk_space import DiskSpace
from consumer.telemetry.outages import Outages

Stage: TypeAlias = Literal["poll", "decode", "prepare", "encode", "add", "commit"]
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FRESHNESS_SECONDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class StageTimer(Protocol):
    """Is told how many seconds a stage took."""

    def observe(self, stage: Stage, seconds: float) -> None: ...


class Metrics:
    """Every metric of the consumer. Thread-safe."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._build_flow()
        self._build_progress()
        self._build_trouble()
        self._build_merging()
        self._build_state()

    def _build_flow(self) -> None:
        registry = self.registry
        self.records = Counter(
            "cliptide_consumer_records_total",
            "Records handed to the index, by what became of them: indexed, patched, removed, dead_letter.",
            ["status"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "cliptide_consumer_stage_seconds",
            "Seconds spent in a stage, once for each batch or group of small records.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in get_args(Stage)}
        self.batch_records = Histogram(
            "cliptide_consumer_batch_records", "Records in a batch.", buckets=_BATCH_SIZES, registry=registry
        )
        self.buffered_bytes = Gauge(
            "cliptide_consumer_buffered_bytes",
            "Bytes of records read and not yet encoded.",
            registry=registry,
        )
        self.truncated_texts = Counter(
            "cliptide_consumer_truncated_texts_total",
            "Texts of which only the beginning was indexed, because the rest did not fit.",
            registry=registry,
        )
        self.encodings_saved = Counter(
            "cliptide_consumer_encodings_saved_total",
            "Uploads that were not encoded, because the same bytes had been encoded before.",
            registry=registry,
        )
        self.pauses = Counter(
            "cliptide_consumer_pauses_total",
            "Partitions paused because their buffer was full.",
            registry=registry,
        )

    def _build_progress(self) -> None:
        registry = self.registry
        self.commits = Counter("cliptide_consumer_commits_total", "Commits.", ["shard"], registry=registry)
        self.generation = Gauge(
            "cliptide_consumer_generation", "Generation last committed.", ["shard"], registry=registry
        )
        self.next_offset = Gauge(
            "cliptide_consumer_committed_next_offset",
            "Next offset last committed.",
            ["shard"],
            registry=registry,
        )
        self.lag_records = Gauge(
            "cliptide_consumer_lag_records",
            "Log end minus committed next offset.",
            ["shard"],
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "cliptide_consumer_lag_seconds",
            "How long ago the log ended at or before the committed next offset.",
            ["shard"],
            registry=registry,
        )
        self.held_back_records = Gauge(
            "cliptide_consumer_held_back_records",
            "Records in the log that an open transaction holds back.",
            ["shard"],
            registry=registry,
        )
        self.committed_after_event = Histogram(
            "cliptide_consumer_committed_after_event_seconds",
            "Seconds from a record's Kafka timestamp to the commit that covers it.",
            buckets=_FRESHNESS_SECONDS,
            registry=registry,
        )

    def _build_trouble(self) -> None:
        registry = self.registry
        self.dead_letters = Counter(
            "cliptide_consumer_dead_letters_total",
            "Records set aside, by reason.",
            ["reason"],
            registry=registry,
        )
        self.misplaced_records = Counter(
            "cliptide_consumer_misplaced_records_total",
            "Records in another partition than their key belongs to.",
            registry=registry,
        )
        self.other_keys = Counter(
            "cliptide_consumer_other_keys_total",
            "Records whose key is not their content id, as a mapping allows.",
            registry=registry,
        )
        self.passed_over = Counter(
            "cliptide_consumer_passed_over_total",
            "Records that the mapping passes over, by the rule that says so.",
            ["rule"],
            registry=registry,
        )
        self.waiting_partitions = Gauge(
            "cliptide_consumer_waiting_partitions",
            "Partitions that wait because this process does not know the schema of a record.",
            registry=registry,
        )
        self.transient_errors = Counter(
            "cliptide_consumer_transient_errors_total",
            "Failures that were waited out and tried again, by place.",
            ["place"],
            registry=registry,
        )
        self.outages = Outages(self.transient_errors)
        self.references_failing = Gauge(
            "cliptide_consumer_references_failing", "References being tried again.", registry=registry
        )
        self.quarantined = Counter(
            "cliptide_consumer_quarantined_records_total",
            "Records handled one at a time because they were under way at an unclean end.",
            registry=registry,
        )
        self.shards_fenced = Counter(
            "cliptide_consumer_shards_fenced_total",
            "Shards dropped because another writer owns them.",
            registry=registry,
        )

    def _build_merging(self) -> None:
        registry = self.registry
        self.merge_debt = Gauge(
            "cliptide_consumer_merge_debt",
            "Segments beyond what merging holds at rest.",
            ["shard"],
            registry=registry,
        )
        self.commits_waiting = Gauge(
            "cliptide_consumer_commits_waiting",
            "1 while the shard has so many segments that it commits nothing until a merge has ended, else 0.",
            ["shard"],
            registry=registry,
        )
        self.erasure_backlog_bytes = Gauge(
            "cliptide_consumer_erasure_backlog_bytes",
            "Bytes of the segments that hold deleted or replaced contents.",
            ["shard"],
            registry=registry,
        )
        self.erasure_oldest_seconds = Gauge(
            "cliptide_consumer_erasure_oldest_seconds",
            "How long ago the content died that was deleted first of those that segments still hold.",
            ["shard"],
            registry=registry,
        )
        self.erasure_late_seconds = Gauge(
            "cliptide_consumer_erasure_late_seconds",
            "By how much deleted contents will leave the disk too late at the budget's rate; 0 if in time.",
            ["shard"],
            registry=registry,
        )
        self.merges_failed = Counter(
            "cliptide_consumer_merges_failed_total",
            "Merges that failed and are tried again.",
            registry=registry,
        )

    def _build_state(self) -> None:
        self.ready = Gauge(
            "cliptide_consumer_ready", "1 while /readyz is green, else 0.", registry=self.registry
        )
        self.held_exit_code = Gauge(
            "cliptide_consumer_held_exit_code",
            "The exit code of a consumer that --hold keeps from ending, else 0.",
            registry=self.registry,
        )
        self.canary_cosine = Gauge(
            "cliptide_consumer_canary_cosine",
            "Least cosine of the index's canaries, as they are encoded now, with those that the index keeps.",
            ["modality"],
            registry=self.registry,
        )
        self.encoder_drifted = Gauge(
            "cliptide_consumer_encoder_drifted",
            "1 while the encoder encodes the index's canaries otherwise than they are kept, else 0.",
            registry=self.registry,
        )
        self.index_free_bytes = Gauge(
            "cliptide_consumer_index_free_bytes", "Bytes free where the index lies.", registry=self.registry
        )
        self.index_disk_bytes = Gauge(
            "cliptide_consumer_index_disk_bytes",
            "Bytes of the file system where the index lies, free or not.",
            registry=self.registry,
        )

    def watch(self, *, is_ready: Callable[[], bool], index_root: Path) -> None:
        """Compute readiness and disk space at every scrape."""
        self.ready.set_function(lambda: float(is_ready()))
        space = DiskSpace(index_root)
        self.index_free_bytes.set_function(lambda: space.ask().free)
        self.index_disk_bytes.set_function(lambda: space.ask().total)

    def tell_erasure(self, shard: str, backlog: ErasureBacklog) -> None:
        self.erasure_backlog_bytes.labels(shard).set(backlog.num_bytes)
        self.erasure_oldest_seconds.labels(shard).set(backlog.oldest_seconds)
        self.erasure_late_seconds.labels(shard).set(backlog.late_seconds)

    def count_truncated_text(self) -> None:
        self.truncated_texts.inc()

    def observe(self, stage: Stage, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(stage, time.perf_counter() - started)

    def forget_shard(self, shard: str) -> None:
        """Stop exporting a shard that is given away, because another process exports it now."""
        gauges = (
            self.generation,
            self.next_offset,
            self.lag_records,
            self.lag_seconds,
            self.held_back_records,
            self.merge_debt,
            self.commits_waiting,
            self.erasure_backlog_bytes,
            self.erasure_oldest_seconds,
            self.erasure_late_seconds,
        )
        for gauge in gauges:
            gauge.remove_by_labels({"shard": shard})
