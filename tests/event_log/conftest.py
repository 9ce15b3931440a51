"""Every test that takes `event_log` or `complete_log` runs on each kind of event log there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from event_log.kafka.settings import KafkaSettings
from tests.event_log.event_logs import EventLogUnderTest, InMemory, OnBroker

IN_MEMORY = pytest.param("memory", id="in memory")
EMBEDDED = pytest.param("embedded_settings", id="embedded broker", marks=pytest.mark.broker)
APACHE_KAFKA = pytest.param("kafka_settings", id="Apache Kafka", marks=pytest.mark.kafka)


def _open(kind: str, request: pytest.FixtureRequest) -> Iterator[EventLogUnderTest]:
    log: EventLogUnderTest = InMemory() if kind == "memory" else OnBroker(request.getfixturevalue(kind))
    yield log
    log.close()


@pytest.fixture(params=[IN_MEMORY, EMBEDDED, APACHE_KAFKA])
def event_log(request: pytest.FixtureRequest) -> Iterator[EventLogUnderTest]:
    yield from _open(request.param, request)


@pytest.fixture(params=[EMBEDDED, APACHE_KAFKA])
def broker_settings(request: pytest.FixtureRequest) -> KafkaSettings:
    """How to reach each kind of broker there is."""
    settings: KafkaSettings = request.getfixturevalue(request.param)
    return settings


@pytest.fixture(params=[IN_MEMORY, APACHE_KAFKA])
def complete_log(request: pytest.FixtureRequest) -> Iterator[EventLogUnderTest]:
    """An event log that also truncates, aborts transactions and checks positions."""
    yield from _open(request.param, request)
