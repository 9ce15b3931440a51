"""A whole consumer on an in-memory log, a hashing encoder and an index in a temporary directory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from opentelemetry.trace import Tracer

from clip_index.encoder.protocol import Encoder
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot
from consumer.app import Connections, ConsumerOptions, build_consumer
from consumer.backoff import Backoff
from consumer.intake.patience import AssignmentPatience
from consumer.intake.thread import IntakeSettings
from consumer.opened_index import IndexLocation
from consumer.pipeline import Pipeline
from consumer.registry.fetching import Registry
from consumer.telemetry.metrics import Metrics
from consumer.writing.commit_policy import CommitPolicy
from event_log.memory.clients import MemoryLog, MemoryPublisher, MemoryRecordSource
from event_log.records import Record
from fakes.hash_encoder import HashEncoder
from opensearch_engine.connection import OpenSearchSettings
from schemas.codec import encode_event
from schemas.events import Content, DeleteEvent, TextContent, UploadEvent

TOPIC = "uploads"
DEAD_LETTER_TOPIC = "uploads.dead-letters"
GROUP = "cliptide-main"
PATIENCE_SECONDS = 60.0  # what ends a test that waits in vain; a busy machine is waited for
QUICK = Backoff(first_seconds=0.01, longest_seconds=0.05)


def quick_options() -> ConsumerOptions:
    return ConsumerOptions(
        commits=CommitPolicy(
            interval_seconds=0.02, watermark_every_seconds=0.05, watermark_margin_seconds=0.1, backoff=QUICK
        ),
        intake=IntakeSettings(idle_wait_seconds=0.02, fenced_patience_seconds=0.3, backoff=QUICK),
        patience=AssignmentPatience(
            take_over_seconds=PATIENCE_SECONDS,
            release_seconds=PATIENCE_SECONDS,
            log_end_seconds=0.2,
            backoff=QUICK,
        ),
        probe_seconds=0.05,
        topic_check_seconds=0.05,
        stop_timeout_seconds=PATIENCE_SECONDS,
    )


def upload(content_id: str, content: Content | None = None, version: int | None = None) -> UploadEvent:
    return UploadEvent(
        event_id=f"event-{content_id}-{version}",
        content_id=content_id,
        source="tests",
        occurred_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        content=content or TextContent(f"a text about {content_id}"),
        version=version,
    )


def eventually(condition: Callable[[], bool], timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.005)


@dataclass
class World:
    """A log, an index root, and consumers between them."""

    root: IndexRoot
    log: MemoryLog = field(default_factory=MemoryLog)
    num_partitions: int = 1
    encoder: Encoder = field(default_factory=HashEncoder)
    options: ConsumerOptions = field(default_factory=quick_options)
    metrics: Metrics = field(default_factory=Metrics)
    source: MemoryRecordSource | None = None
    tracer: Tracer | None = None
    registry: Registry | None = None
    opensearch: OpenSearchSettings | None = None

    def __post_init__(self) -> None:
        self.log.create_topic(TOPIC, self.num_partitions)
        self.log.create_topic(DEAD_LETTER_TOPIC)

    def build(self) -> Pipeline:
        self.metrics = Metrics()
        self.source = MemoryRecordSource(self.log, GROUP)
        connections = Connections(
            self.source,
            MemoryPublisher(self.log),
            self.encoder,
            self.log.describe_topic(TOPIC),
            DEAD_LETTER_TOPIC,
            self.tracer,
            self.registry,
        )
        location = IndexLocation(self.root, "main", GROUP, self.opensearch)
        return build_consumer(connections, location, self.options, self.metrics)

    @contextmanager
    def running(self) -> Iterator[Pipeline]:
        """Run a consumer; a graceful stop at the end raises what went wrong."""
        pipeline = self.build()
        pipeline.start()
        try:
            yield pipeline
        finally:
            pipeline.finish()

    def failure(self, timeout_seconds: float = PATIENCE_SECONDS) -> BaseException:
        """Run a consumer until it fails by itself, and return why."""
        pipeline = self.build()
        pipeline.start()
        stopped = pipeline.wait(timeout_seconds)
        try:
            pipeline.finish()
        except BaseException as error:  # noqa: BLE001 - the failure is the result
            return error
        raise AssertionError(f"the consumer did not fail (stopped: {stopped})")

    def set_options(self, **changes: object) -> None:
        self.options = replace(self.options, **changes)  # type: ignore[arg-type]

    def publish(self, event: UploadEvent | DeleteEvent, partition: int = 0) -> int:
        """Append an event; return the next offset behind it."""
        encoded = encode_event(event)
        return self.append(encoded.key, encoded.value, partition)

    def append(self, key: bytes | None, value: bytes | None, partition: int = 0) -> int:
        return self.log.append(TOPIC, partition, key=key, value=value).next_offset

    def dead_letters(self) -> list[Record]:
        with self.log.changed:
            return list(self.log.partition(DEAD_LETTER_TOPIC, 0).records)

    def reasons(self) -> list[str]:
        return [dict(letter.headers)["cliptide.reason"].decode() for letter in self.dead_letters()]  # type: ignore[union-attr]

    def group_offset(self, partition: int = 0) -> int | None:
        with self.log.changed:
            return self.log.group(GROUP).committed.get((TOPIC, partition))

    def searcher(self) -> Searcher:
        reader = IndexReader(self.root, "main")
        reader.reload()
        assert reader.searcher is not None
        return reader.searcher

    def next_offset(self, partition: int = 0) -> int:
        return self.searcher().shards[f"{TOPIC}-{partition}"].next_offset

    def shard_path(self, partition: int = 0) -> Path:
        return IndexDirectory.open(self.root, "main").shard_path(partition)

    def watermark_ms(self) -> int | None:
        return self.searcher().shards[f"{TOPIC}-0"].watermark_ms

    def stage_count(self, stage: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "cliptide_consumer_stage_seconds_count", {"stage": stage}
        )

    def lag_seconds(self) -> float | None:
        labels = {"shard": f"{TOPIC}-0"}
        return self.metrics.registry.get_sample_value("cliptide_consumer_lag_seconds", labels)

    def failures(self, place: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "cliptide_consumer_transient_errors_total", {"place": place}
        )

    def owns(self, partition: int) -> bool:
        """Whether the consumer built last has taken the partition over."""
        labels = {"shard": f"{TOPIC}-{partition}"}
        return self.metrics.registry.get_sample_value("cliptide_consumer_generation", labels) is not None

    def wait_committed(self, next_offset: int, partition: int = 0) -> None:
        shard = f"{TOPIC}-{partition}"
        labels = {"shard": shard}

        def is_committed() -> bool:
            value = self.metrics.registry.get_sample_value("cliptide_consumer_committed_next_offset", labels)
            return value is not None and value >= next_offset

        eventually(is_committed)

    def num_takeovers(self) -> int:
        """How often a writer has begun to own the shard: its writer epoch."""
        manifests = sorted(self.shard_path().glob("manifest-*.json"))
        return int(json.loads(manifests[-1].read_text())["writer_epoch"]) if manifests else 0
