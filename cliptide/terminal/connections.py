"""Kafka clients for the length of one command: checked at the start, closed at the end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from cliptide.terminal.waiting import waiting_told
from event_log.errors import RecordUnreadable, TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from event_log.publisher import Publisher
from event_log.source import RecordSource

REQUEST_TIMEOUT_SECONDS = 15.0

Client = TypeVar("Client")


@contextmanager
def open_publisher(kafka: KafkaSettings, topic: str) -> Iterator[Publisher]:
    """Open a publisher, after the broker has confirmed that the topic exists.

    Raises an `EventLogError`, or `click.UsageError` for a property that librdkafka refuses.
    """
    admin = _built(lambda: KafkaAdmin(kafka, request_timeout_seconds=REQUEST_TIMEOUT_SECONDS))
    with _address_named(kafka), waiting_told(f"Kafka at {kafka.bootstrap_servers}"):
        admin.check_reachable()
        admin.describe_topic(topic)
    publisher = _built(lambda: KafkaPublisher(kafka))
    try:
        yield publisher
    finally:
        publisher.close()


@contextmanager
def open_source(kafka: KafkaSettings) -> Iterator[RecordSource]:
    """Open a source in a group of its own, so that it disturbs no other reader, after a broker has answered.

    Raises an `EventLogError`, or `click.UsageError` for a property that librdkafka refuses.
    """
    admin = _built(lambda: KafkaAdmin(kafka, request_timeout_seconds=REQUEST_TIMEOUT_SECONDS))
    with _address_named(kafka), waiting_told(f"Kafka at {kafka.bootstrap_servers}"):
        admin.check_reachable()
    group_id = f"cliptide-{uuid.uuid4()}"
    source = _built(
        lambda: KafkaRecordSource(kafka, group_id, request_timeout_seconds=REQUEST_TIMEOUT_SECONDS)
    )
    try:
        with _address_named(kafka):
            yield source
    finally:
        source.close()


def _built(build: Callable[[], Client]) -> Client:
    try:
        return build()
    except ValueError as error:  # its message is one line that names the variable
        raise click.UsageError(str(error)) from error


@contextmanager
def _address_named(kafka: KafkaSettings) -> Iterator[None]:
    """Add the broker's address to the error, which a broker that is away cannot do."""
    try:
        yield
    except RecordUnreadable:  # Kafka has answered, and this names the record
        raise
    except TransientLogError as error:
        away = f"no answer from Kafka at {kafka.bootstrap_servers} ({error}): see --bootstrap-servers"
        raise TransientLogError(away) from error
