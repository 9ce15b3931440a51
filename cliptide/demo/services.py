"""Runs the demo's broker, consumer and query service, each a process on a free loopback port."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cliptide.demo.child_process import Child, ChildDied, free_port, last_lines
from cliptide.demo.embedded_broker import EmbeddedBroker
from cliptide.searching.query_client import QueryClient, QueryServiceAway
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings

TOPIC = "content-uploads"
DEAD_LETTER_TOPIC = "content-uploads.dead-letters"
NUM_PARTITIONS = 2
READY_POLL_SECONDS = 0.1
THUMBNAIL_SIDE = 192  # pixels


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
    children: tuple[Child, ...]
    broker: BrokerWatch | None = None

    def check(self) -> None:
        """Raise `ChildDied` if a service ended by itself."""
        if self.broker is not None:
            self.broker.check()
        for child in self.children:
            child.check()

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until a consumer owns every partition and the query service answers."""
        deadline = time.monotonic() + timeout_seconds
        while not self._is_ready():
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


@contextmanager
def running_services(directory: Path, model_directory: Path) -> Iterator[DemoServices]:
    """Start broker, consumer and query service, and stop them in reverse order.

    `directory` holds their index, their working files and their logs (`*.log`).
    """
    with ExitStack() as stack:
        log_path = directory / "broker.log"
        broker = stack.enter_context(EmbeddedBroker(log_path=log_path))
        kafka = KafkaSettings(broker.bootstrap_servers, EmbeddedBroker.client_properties)
        create_topics(kafka)
        port = free_port()
        environment = build_environment(directory, model_directory, kafka, port)
        children = stack.enter_context(_running_children(environment, directory))
        client = QueryClient(f"http://127.0.0.1:{port}")
        yield DemoServices(kafka, client, children, BrokerWatch(broker, log_path))


def create_topics(kafka: KafkaSettings) -> None:
    admin = KafkaAdmin(kafka)
    admin.create_topic(TOPIC, TopicCreation(NUM_PARTITIONS, config={"max.message.bytes": MAX_RECORD_BYTES}))
    admin.create_topic(DEAD_LETTER_TOPIC, TopicCreation(1))


def index_root(directory: Path) -> Path:
    return directory / "index"


def build_environment(
    directory: Path, model_directory: Path, kafka: KafkaSettings, query_port: int
) -> dict[str, str]:
    """Return this process's environment, with all settings replaced by those of the demo."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLIPTIDE_")}
    own: Mapping[str, str] = {
        "CLIPTIDE_TOPIC": TOPIC,
        "CLIPTIDE_DEAD_LETTER_TOPIC": DEAD_LETTER_TOPIC,
        "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(kafka.properties)),
        "CLIPTIDE_INDEX__ROOT": str(index_root(directory)),
        "CLIPTIDE_ENCODER__MODEL": str(model_directory),
        "CLIPTIDE_CONSUMER__HEALTH_PORT": "0",  # any free port
        "CLIPTIDE_CONSUMER__THUMBNAIL_SIDE": str(THUMBNAIL_SIDE),
        "CLIPTIDE_QUERY_API__PORT": str(query_port),
        "CLIPTIDE_QUERY_API__CAN_PUBLISH": "true",
        "CLIPTIDE_QUERY_API__METRICS_PORT": "0",
        "CLIPTIDE_QUERY_API__DRAIN_SECONDS": "0",  # no load balancer stands before it
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **own}


@contextmanager
def _running_children(environment: Mapping[str, str], directory: Path) -> Iterator[tuple[Child, ...]]:
    """Run consumer and query service, and end both at the same time."""
    children: list[Child] = []
    try:
        for name, module in (("consumer", "consumer"), ("query service", "query_api")):
            children.append(Child(name, module, environment, directory / f"{module}.log"))
        yield tuple(children)
    finally:
        for child in children:
            child.ask_to_end()
        for child in children:
            child.stop()
