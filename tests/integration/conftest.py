"""Fleets on each kind of broker there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from event_log.kafka_settings import KafkaSettings
from tests.integration.fleet import Fleet, running_fleet
from tests.integration.history import History

_QUICK = {"topic.metadata.refresh.interval.ms": 500}


def _fleet(kafka: KafkaSettings, topic: str, folder: Path) -> Iterator[Fleet]:
    settings = KafkaSettings(kafka.bootstrap_servers, {**_QUICK, **kafka.properties})
    with running_fleet(settings, topic, folder) as fleet:
        yield fleet


@pytest.fixture(
    params=[
        pytest.param("kafka_settings", id="Apache Kafka", marks=pytest.mark.kafka),
        pytest.param("embedded_settings", id="embedded broker", marks=pytest.mark.broker),
    ]
)
def fleet(
    request: pytest.FixtureRequest, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """Four partitions and no consumer yet."""
    yield from _fleet(request.getfixturevalue(request.param), unique_name("uploads"), tmp_path)


@pytest.fixture
def kafka_fleet(
    kafka_settings: KafkaSettings, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet for what only Apache Kafka does."""
    yield from _fleet(kafka_settings, unique_name("uploads"), tmp_path)


@pytest.fixture
def embedded_fleet(
    embedded_settings: KafkaSettings, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet for what one kind of broker shows well enough."""
    yield from _fleet(embedded_settings, unique_name("uploads"), tmp_path)


@pytest.fixture
def history(request: pytest.FixtureRequest) -> History:
    """What is published to the fleet that the test takes."""
    name = "kafka_fleet" if "kafka_fleet" in request.fixturenames else "fleet"
    fleet: Fleet = request.getfixturevalue(name)
    return History(fleet.kafka, fleet.topic)
