"""Opens Kafka's clients and the schema registry from the settings, and creates topics if it may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import structlog

from clip_index.encoder.protocol import Encoder
from consumer.app import Connections
from consumer.settings import Settings
from consumer.starting.waiting import Waits
from event_log.errors import RegistryRefused, RegistryUnavailable
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from event_log.records import TopicDescription
from event_log.schema_registry.client import RegistryClient
from service.environment import BadSettings

_REQUEST_TIMEOUT_SECONDS = 5.0  # short, because intake waits for the answer and a stop waits for intake
_START_REQUEST_SECONDS = 10.0
_log = structlog.get_logger(__name__)


def find_topic(settings: Settings, kafka: KafkaSettings, waits: Waits) -> TopicDescription | None:
    """Wait for a broker, create missing topics if allowed, and describe the topic; None when told to stop."""
    with _refusing_bad_properties():
        admin = KafkaAdmin(kafka, request_timeout_seconds=_START_REQUEST_SECONDS)
    return waits.for_broker(lambda: _ensure_topics(admin, settings), kafka.bootstrap_servers)


def connect(
    settings: Settings, kafka: KafkaSettings, topic: TopicDescription, encoder: Encoder, stack: ExitStack
) -> Connections:
    """Open the clients. The stack closes publisher and registry; the intake thread closes the source.

    Raises `BadSettings` for properties that librdkafka refuses, and `RegistryRefused`.
    """
    with _refusing_bad_properties():
        publisher = stack.enter_context(closing(KafkaPublisher(kafka)))
        source = KafkaRecordSource(kafka, settings.group_id, request_timeout_seconds=_REQUEST_TIMEOUT_SECONDS)
    registry = _open_registry(settings, stack)
    return Connections(source, publisher, encoder, topic, settings.dead_letter_topic, registry=registry)


def _open_registry(settings: Settings, stack: ExitStack) -> RegistryClient | None:
    """Connect to the schema registry, and refuse wrong credentials. If it is away, records wait for it."""
    connection = settings.schema_registry.connection()
    if connection is None:
        return None
    client = stack.enter_context(closing(RegistryClient(connection)))
    try:
        client.check()
    except RegistryRefused:
        raise
    except RegistryUnavailable as error:
        _log.warning("starting without the schema registry", error=str(error))
    return client


@contextmanager
def _refusing_bad_properties() -> Iterator[None]:
    """Turns a `ValueError` of Kafka's clients into `BadSettings`, because it is about their properties.

    Anywhere else a `ValueError` is a defect.
    """
    try:
        yield
    except ValueError as error:
        raise BadSettings(str(error)) from error


def _ensure_topics(admin: KafkaAdmin, settings: Settings) -> TopicDescription:
    admin.ensure_topic(settings.dead_letter_topic, _topic_creation(settings, num_partitions=1))
    return admin.ensure_topic(
        settings.topic, _topic_creation(settings, num_partitions=settings.consumer.num_partitions)
    )


def _topic_creation(settings: Settings, *, num_partitions: int) -> TopicCreation | None:
    if not settings.consumer.create_topics:
        return None
    return TopicCreation(num_partitions, config={"max.message.bytes": MAX_RECORD_BYTES})
