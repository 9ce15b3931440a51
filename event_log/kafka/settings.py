"""How to reach Kafka, and how the settings become librdkafka's configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import structlog
from confluent_kafka import KafkaException

Property: TypeAlias = str | int | float | bool
Config: TypeAlias = dict[str, Any]
Client = TypeVar("Client")

PROPERTIES_VARIABLE = "CLIPTIDE_KAFKA__PROPERTIES"

MAX_RECORD_BYTES = 11 * 1024 * 1024
"""A content of 10 MiB and its envelope; topics want at least this as `max.message.bytes`."""

# Each of these carries a guarantee: no gap, no repetition, no silent reset, one partition per content id.
_FIXED = frozenset(
    {
        "acks",
        "auto.commit.enable",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.protocol",
        "isolation.level",
        "metadata.broker.list",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """`properties` are librdkafka's own (SASL, TLS, client.rack, group.instance.id, …), passed through.

    Raises `ValueError`, in one line, for a property on which a guarantee rests.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    properties: Mapping[str, Property] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fixed = sorted(_FIXED.intersection(self.properties))
        if fixed:
            raise ValueError(f"{PROPERTIES_VARIABLE}: {', '.join(fixed)} cannot be set: fixed by cliptide")


def build_admin_config(settings: KafkaSettings) -> Config:
    return _build_config(settings, defaults={}, fixed={})


def build_consumer_config(settings: KafkaSettings, group_id: str) -> Config:
    """Return a configuration for one reader that decides its positions itself."""
    defaults: Config = {
        "max.poll.interval.ms": 300_000,
        "topic.metadata.refresh.interval.ms": 30_000,
        # The prefetch is bounded in bytes. A full queue delays the next fetch by a second unless told
        # otherwise, which would hold a bounded reader at 32 MiB/s.
        "queued.max.messages.kbytes": 32 * 1024,
        "fetch.queue.backoff.ms": 20,
        "fetch.message.max.bytes": MAX_RECORD_BYTES,
        # A resumed or new partition waits for the fetch that is under way.
        "fetch.wait.max.ms": 100,
        "fetch.max.bytes": 32 * 1024 * 1024,
    }
    fixed: Config = {
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
    }
    return _build_config(settings, defaults, fixed)


def build_producer_config(settings: KafkaSettings) -> Config:
    """Return a configuration for one idempotent publisher.

    No compression by default: most bytes are JPEG or PNG, which compress by a percent or two.
    """
    defaults: Config = {
        "compression.type": "none",
        "message.max.bytes": MAX_RECORD_BYTES,
        "queue.buffering.max.kbytes": 64 * 1024,
        "linger.ms": 5,
    }
    fixed: Config = {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # Java's; librdkafka's own default places keys elsewhere
    }
    return _build_config(settings, defaults, fixed)


def build_client(factory: Callable[[Config], Client], config: Config) -> Client:
    """Build a client, or raise `ValueError` in one line when librdkafka refuses a property."""
    try:
        return factory(config)
    except KafkaException as error:
        raise ValueError(f"{PROPERTIES_VARIABLE}: {error.args[0].str()}") from error


def _build_config(settings: KafkaSettings, defaults: Config, fixed: Config) -> Config:
    common: Config = {"client.id": "cliptide", "logger": LibrdkafkaLog()}
    own: Config = {"bootstrap.servers": settings.bootstrap_servers}
    return {**common, **defaults, **settings.properties, **fixed, **own}


class LibrdkafkaLog:
    """What librdkafka takes for a logger: its lines become structured log events."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("librdkafka")

    def log(self, level: int, _format: str, facility: str, client: str, message: str) -> None:
        # One set of properties serves reader, publisher and admin: each is told of the others' properties.
        if facility == "CONFWARN":
            level = logging.DEBUG
        self._log.log(level, "librdkafka", facility=facility, client=client, message=message)
