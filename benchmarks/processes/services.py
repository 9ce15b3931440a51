"""Starts a broker, a consumer and a query service as the processes that a user runs."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import NUM_PARTITIONS
from benchmarks.indexes.searched_index import Layout, cached_index
from benchmarks.processes.cores import started_on
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.generations.history import read_newest
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore
from cliptide.demo.child_process import Child, free_port
from cliptide.demo.embedded_broker import EmbeddedBroker
from cliptide.searching.query_client import QueryClient
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings

PATIENCE_SECONDS = 120.0
NO_RATE_LIMIT = {
    "CLIPTIDE_QUERY_API__RATE_PER_SECOND": "1000000",
    "CLIPTIDE_QUERY_API__RATE_BURST": "1000000",
}
"""For clients that all ask from one address, more often than one client may."""

_POLL_SECONDS = 0.01
_NUM_UNACKNOWLEDGED = 10_000


@dataclass(frozen=True, slots=True)
class Site:
    """One topic of four partitions, and its index. Logs of the processes lie beside the index."""

    kafka: KafkaSettings
    topic: str
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "index"

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.topic}.dead-letters"

    @property
    def group_id(self) -> str:
        return f"cliptide-{self.topic}"

    def shard_path(self, partition: int) -> Path:
        return self.root / "indexes" / "main" / f"{self.topic}-{partition}"

    def shard_store(self, partition: int) -> ShardStore:
        return LocalShardStore(self.shard_path(partition))

    def generations(self) -> list[int]:
        """Return the newest generation of each shard, 0 before the first."""
        found = [read_newest(self.shard_store(p)) for p in range(NUM_PARTITIONS)]
        return [manifest.generation if manifest else 0 for manifest in found]


@dataclass(frozen=True, slots=True)
class Program:
    """The programs that run as consumer and query service: the real ones, or those with another encoder.

    The query service runs on `query_cores`, which are those of the calling thread if None.
    """

    consumer: str = "consumer"
    query_service: str | None = "query_api"
    environment: Mapping[str, str] = field(default_factory=dict)
    query_cores: Collection[int] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """The processes of a site; `port` is the query service's."""

    site: Site
    consumer: Child
    query_service: Child | None
    port: int

    def check(self) -> None:
        """Raise `ChildDied` if a process has ended by itself."""
        self.consumer.check()
        if self.query_service is not None:
            self.query_service.check()

    def wait(self, is_done: Callable[[], bool], timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `is_done` returns true. Raises `ChildDied` and `TimeoutError`."""
        deadline = time.monotonic() + timeout_seconds
        while not is_done():
            self.check()
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self.site.topic}: still waiting after {timeout_seconds:.0f} seconds")
            time.sleep(_POLL_SECONDS)


@contextmanager
def running_broker(directory: Path) -> Iterator[KafkaSettings]:
    with EmbeddedBroker(log_path=directory / "broker.log") as broker:
        yield KafkaSettings(broker.bootstrap_servers)


def open_site(kafka: KafkaSettings, directory: Path, topic: str) -> Site:
    """Create the topics, and a directory named after the topic."""
    site = Site(kafka, topic, directory / topic)
    site.directory.mkdir()
    admin = KafkaAdmin(kafka)
    config = {"max.message.bytes": MAX_RECORD_BYTES}
    admin.create_topic(topic, TopicCreation(NUM_PARTITIONS, config=config))
    admin.create_topic(site.dead_letter_topic, TopicCreation(1))
    return site


def lay_index(site: Site, layout: Layout, fingerprint: EncoderFingerprint) -> None:
    """Give the site an index with the rows of a layout, as if they had come from its topic.

    As many records (deletes of unknown ids) are published, so that the log reaches the index's
    offsets and a consumer continues after them.
    """
    description = IndexDescription(
        topic=site.topic,
        topic_id=KafkaAdmin(site.kafka).describe_topic(site.topic).topic_id,
        num_partitions=NUM_PARTITIONS,
        group_id=site.group_id,
        fingerprint=fingerprint,
    )
    index, source = IndexDirectory.create(site.root, "main", description), cached_index(layout)
    for partition in range(NUM_PARTITIONS):
        shutil.copytree(
            source.shard_path(partition), index.shard_path(partition), copy_function=_link_or_copy
        )
    newest = [read_newest(site.shard_store(p)) for p in range(NUM_PARTITIONS)]
    _fill_log(site, max(manifest.next_offset for manifest in newest if manifest))


def _link_or_copy(source: str, target: str) -> None:
    """Link packs, which nobody changes: written by the writer they lie in huge pages, copies do not."""
    if source.endswith(".pack"):
        with suppress(OSError):  # another file system
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _fill_log(site: Site, num_records: int) -> None:
    """Publish deletes until every partition has the given number of records."""
    publisher = KafkaPublisher(site.kafka)
    lengths = [0] * NUM_PARTITIONS
    number = 0
    while min(lengths) < num_records:
        wanted = (num_records - min(lengths)) * NUM_PARTITIONS
        keys = [f"absent-{number + i}".encode() for i in range(min(wanted, _NUM_UNACKNOWLEDGED))]
        number += len(keys)
        for future in [publisher.publish(site.topic, key=key, value=None) for key in keys]:
            delivery = future.result(PATIENCE_SECONDS)
            lengths[delivery.partition] = max(lengths[delivery.partition], delivery.next_offset)
    publisher.close()


@contextmanager
def running(site: Site, program: Program) -> Iterator[Running]:
    """Start the processes. Yields when they own every shard, have caught up, and answer."""
    port = free_port()
    environment = {**_environment(site, port), **program.environment}
    before = site.generations()
    children: list[Child] = []

    def start(module: str) -> Child:
        children.append(Child(module, module, environment, site.directory / f"{module}.log"))
        return children[-1]

    try:
        consumer = start(program.consumer)
        with started_on(program.query_cores or os.sched_getaffinity(0)):
            query_service = start(program.query_service) if program.query_service else None
        services = Running(site, consumer, query_service, port)
        services.wait(lambda: all(a > b for a, b in zip(site.generations(), before, strict=True)))
        if query_service is not None:
            services.wait(QueryClient(f"http://127.0.0.1:{port}").is_ready)
        yield services
    finally:
        for child in children:
            child.ask_to_end()
        for child in children:
            child.stop()


def encoder_environment(settings: EncoderSettings) -> dict[str, str]:
    """Return the variables that make a process load this encoder."""
    environment = {"CLIPTIDE_ENCODER__MODEL": settings.model}
    if settings.pretrained is not None:
        environment["CLIPTIDE_ENCODER__PRETRAINED"] = settings.pretrained
    return environment


def _environment(site: Site, port: int) -> dict[str, str]:
    """Return this process's environment, with the site's settings as its only ones of cliptide."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLIPTIDE_")}
    return {
        **inherited,
        "CLIPTIDE_TOPIC": site.topic,
        "CLIPTIDE_DEAD_LETTER_TOPIC": site.dead_letter_topic,
        "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": site.kafka.bootstrap_servers,
        "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(EmbeddedBroker.client_properties)),
        "CLIPTIDE_INDEX__ROOT": str(site.root),
        "CLIPTIDE_CONSUMER__GROUP_ID": site.group_id,
        "CLIPTIDE_CONSUMER__HEALTH_PORT": "0",
        "CLIPTIDE_QUERY_API__PORT": str(port),
        "CLIPTIDE_QUERY_API__METRICS_PORT": "0",
        "CLIPTIDE_QUERY_API__DRAIN_SECONDS": "0",
    }
