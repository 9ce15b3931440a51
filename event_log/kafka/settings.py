"""How to reach Kafka, and how these settings become librdkafka's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from confluent_kafka import KafkaException

from event_log.kafka.client_errors import PROPERTIES_VARIABLE
from event_log.kafka.client_log import LibrdkafkaLog

Property: TypeAlias = str | int | float | bool
Config: TypeAlias = dict[str, Any]
Client = TypeVar("Client")

MAX_RECORD_BYTES = 11 * 1024 * 1024
"""Room for a content of 10 MiB and the rest of its event. Topics need this as `max.message.bytes`."""

_OF_PYTHON = frozenset(
    {
        "default.topic.config",
        "error_cb",
        "key.deserializer",
        "key.serializer",
        "log_cb",
        "logger",
        "oauth_cb",
        "on_assign",
        "on_commit",
        "on_delivery",
        "on_lost",
        "on_revoke",
        "stats_cb",
        "throttle_cb",
        "value.deserializer",
        "value.serializer",
    }
)
"""Keys of confluent_kafka's configuration that hold Python objects, which no variable can give."""

# A guarantee rests on each of these: no gap, no repetition, no silent reset, one partition per content id.
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


_SCHEMES = frozenset({"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"})
"""librdkafka takes these before an address, too."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where Kafka is. `properties` (SASL, TLS, client.rack, …) are passed on to librdkafka.

    `log` is shared by all clients of these settings.

    Raises `ValueError`, in one line, for a property on which a guarantee rests, or that only Python code
    can set, and for an address of another protocol.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    properties: Mapping[str, Property] = field(default_factory=dict)
    log: LibrdkafkaLog = field(default_factory=LibrdkafkaLog, repr=False, compare=False)

    def __post_init__(self) -> None:
        if foreign_schemes := sorted(set(_schemes(self.bootstrap_servers)) - _SCHEMES):
            raise ValueError(
                f"CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS: {foreign_schemes[0]}:// is no protocol of Kafka's: "
                "give host:port, separated by commas"
            )
        fixed = sorted(_FIXED.intersection(self.properties))
        if fixed:
            raise ValueError(f"{PROPERTIES_VARIABLE}: {', '.join(fixed)} cannot be set: fixed by cliptide")
        if foreign := sorted(name for name in self.properties if _is_of_python(name)):
            names = ", ".join(foreign)
            raise ValueError(f"{PROPERTIES_VARIABLE}: {names} cannot be set: no property of librdkafka")


def _schemes(addresses: str) -> list[str]:
    return [one.partition("://")[0].strip().lower() for one in addresses.split(",") if "://" in one]


def _is_of_python(name: str) -> bool:
    return name in _OF_PYTHON or name.endswith("_cb")


def build_admin_config(settings: KafkaSettings) -> Config:
    return _build_config(settings, defaults={}, fixed={})


def build_consumer_config(settings: KafkaSettings, group_id: str) -> Config:
    """Return the configuration of a reader that decides by itself where to start."""
    defaults: Config = {
        "max.poll.interval.ms": 300_000,
        "topic.metadata.refresh.interval.ms": 30_000,
        # The queue of prefetched records is bounded in bytes. While it is full, librdkafka by default
        # waits a second before the next fetch, which would limit the reader to 32 MiB/s.
        "queued.max.messages.kbytes": 32 * 1024,
        "fetch.queue.backoff.ms": 20,
        "fetch.message.max.bytes": MAX_RECORD_BYTES,
        # A new or resumed partition waits until the running fetch ends, so fetches are short.
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

    Compression is off by default, because most bytes are JPEG or PNG and shrink by a percent or two.
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
        "partitioner": "murmur2_random",  # as in Java; librdkafka's default sends keys to other partitions
    }
    return _build_config(settings, defaults, fixed)


def build_client(factory: Callable[[Config], Client], config: Config) -> Client:
    """Build a client. Raises `ValueError`, in one line, if librdkafka refuses a property."""
    try:
        return factory(config)
    except KafkaException as error:
        raise ValueError(f"{PROPERTIES_VARIABLE}: {error.args[0].str()}") from error


def _build_config(settings: KafkaSettings, defaults: Config, fixed: Config) -> Config:
    common: Config = {"client.id": "cliptide", "logger": settings.log}
    own: Config = {"bootstrap.servers": settings.bootstrap_servers}
    return {**common, **defaults, **settings.properties, **fixed, **own}
