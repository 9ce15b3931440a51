"""Runs the demo's broker, consumer and query service, each a process of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cliptide.demo.address import PageAddress
from cliptide.demo.child_process import Child, ChildDied, last_lines
from cliptide.demo.embedded_broker import EmbeddedBroker
from cliptide.demo.garments.drawing import DEFAULT_SIZE
from cliptide.demo.kept_consumer import KeptConsumer
from cliptide.searching.query_client import QueryClient, QueryServiceAway
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings

TOPIC = "content-uploads"
DEAD_LETTER_TOPIC = "content-uploads.dead-letters"
NUM_PARTITIONS = 2
READY_POLL_SECONDS = 0.1


class NotReadyInTime(Exception):
    """The services run but did not get ready in time."""


@dataclass(frozen=True, slots=True)
class BrokerWatch:
    """Checks that the broker still runs."""

    broker: EmbeddedBroker
    log_path: Path

    def check(self) -> None:
        """Raise `ChildDied` unless the broker runs."""
        if not self.broker.is_running:
            raise ChildDied("broker", last_lines(self.log_path))


@dataclass(frozen=True, slots=True)
class DemoServices:
    """The running services: how to reach them, and a check that they still run."""

    kafka: KafkaSettings
    query_client: QueryClient
    query_service: Child | None = None
    consumer: KeptConsumer | None = None
    broker: BrokerWatch | None = None
    engine: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Start a crashed consumer again. Raise `ChildDied` if a service ended and cannot be started again.

        The error is a `ConsumerStopped` if the page goes on without that service.
        """
        for service in (self.broker, self.query_service, self.consumer):
            if service is not None:
                service.check()

    def wait_until_answering(self, timeout_seconds: float) -> None:
        """Wait until the query service answers searches."""
        self._wait(self.query_client.is_ready, timeout_seconds)

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until a consumer owns every partition and the query service answers."""
        self._wait(self._is_ready, timeout_seconds)

    def _wait(self, is_over: Callable[[], bool], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not is_over():
            self.check()
            if time.monotonic() >= deadline:
                raise NotReadyInTime(f"the services were not ready after {timeout_seconds:.0f} seconds")
            time.sleep(READY_POLL_SECONDS)

    def _is_ready(self) -> bool:
        if not self.query_client.is_ready():
            return False
        try:
            return self.query_client.index().num_owned == NUM_PARTITIONS
        except QueryServiceAway:
            return False


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demo's files lie, and which other folders `file://` references may name.

    The index lies in the `bucket`, a URL, if there is one.
    """

    directory: Path
    reference_folders: tuple[Path, ...] = ()
    bucket: str | None = None

    @property
    def index_root(self) -> Path | str:
        return self.bucket or self.directory / "index"

    @property
    def index_cache(self) -> Path:
        """Copies of the index's files, if it lies in a bucket."""
        return self.directory / "index-cache"

    @property
    def model(self) -> Path:
        return self.directory / "model"

    @property
    def pictures(self) -> Path:
        """The pictures that the demo publishes as references."""
        return self.directory / "pictures"

    @property
    def large_contents(self) -> Path:
        """What the query service stores if an upload is too large for a record."""
        return self.directory / "large"

    @property
    def all_reference_folders(self) -> list[str]:
        return [str(path) for path in (self.pictures, self.large_contents, *self.reference_folders)]


@contextmanager
def running_services(
    files: DemoFiles, model_directory: Path, page: PageAddress, engine: Mapping[str, str] | None = None
) -> Iterator[DemoServices]:
    """Start broker, consumer and query service, and stop them in reverse order.

    `files` says where their index, their working files and their logs (`*.log`) lie. `engine` are the
    variables of another engine than a directory.
    """
    with ExitStack() as stack:
        log_path = files.directory / "broker.log"
        broker = stack.enter_context(EmbeddedBroker(log_path=log_path))
        kafka = KafkaSettings(broker.bootstrap_servers, EmbeddedBroker.client_properties)
        create_topics(kafka)
        environment = {**build_environment(files, model_directory, kafka, page), **(engine or {})}
        consumer, query_service = stack.enter_context(_running_children(environment, files.directory))
        watch = BrokerWatch(broker, log_path)
        yield DemoServices(kafka, QueryClient(page.url), query_service, consumer, watch, engine or {})


def create_topics(kafka: KafkaSettings) -> None:
    admin = KafkaAdmin(kafka)
    admin.create_topic(TOPIC, TopicCreation(NUM_PARTITIONS, config={"max.message.bytes": MAX_RECORD_BYTES}))
    admin.create_topic(DEAD_LETTER_TOPIC, TopicCreation(1))


def build_environment(
    files: DemoFiles, model_directory: Path, kafka: KafkaSettings, page: PageAddress
) -> dict[str, str]:
    """Return this process's environment, with all settings replaced by those of the demo."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLIPTIDE_")}
    own: Mapping[str, str] = {
        "CLIPTIDE_TOPIC": TOPIC,
        "CLIPTIDE_DEAD_LETTER_TOPIC": DEAD_LETTER_TOPIC,
        "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(kafka.properties)),
        "CLIPTIDE_INDEX__ROOT": str(files.index_root),
        "CLIPTIDE_INDEX__CACHE_DIR": str(files.index_cache),
        "CLIPTIDE_ENCODER__MODEL": str(model_directory),
        "CLIPTIDE_CONSUMER__HEALTH_PORT": "0",  # any free port
        "CLIPTIDE_CONSUMER__THUMBNAIL_SIDE": str(DEFAULT_SIZE),  # they are the linked pictures
        "CLIPTIDE_CONSUMER__REFERENCE_FILE_ROOTS": json.dumps(files.all_reference_folders),
        "CLIPTIDE_QUERY_API__CAN_PUBLISH": "true",
        "CLIPTIDE_QUERY_API__LARGE_CONTENTS_DIRECTORY": str(files.large_contents),
        "CLIPTIDE_QUERY_API__METRICS_PORT": "0",
        "CLIPTIDE_QUERY_API__DRAIN_SECONDS": "0",  # no load balancer stands before it
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **own, **_address_settings(page)}


def _address_settings(page: PageAddress) -> dict[str, str]:
    """Where the query service listens, and to whom: beyond loopback to everybody, because it has no keys."""
    return {
        "CLIPTIDE_QUERY_API__HOST": page.host,
        "CLIPTIDE_QUERY_API__PORT": str(page.port),
        "CLIPTIDE_QUERY_API__ALLOW_ANONYMOUS": json.dumps(not page.is_loopback),
        "CLIPTIDE_QUERY_API__HOST_NAMES": json.dumps(page.names),
        "CLIPTIDE_QUERY_API__LINK_HOSTS": json.dumps([page.link_host]),
    }


@contextmanager
def _running_children(
    environment: Mapping[str, str], directory: Path
) -> Iterator[tuple[KeptConsumer, Child]]:
    """Run consumer and query service, and end both at the same time."""
    with ExitStack() as stack:
        consumer = KeptConsumer(
            lambda: Child("consumer", "consumer", environment, directory / "consumer.log")
        )
        stack.callback(consumer.stop)
        query_service = Child("query service", "query_api", environment, directory / "query_api.log")
        stack.callback(query_service.stop)
        stack.callback(consumer.ask_to_end)  # called first, so that both end at the same time
        yield consumer, query_service
