"""Fleets on each kind of broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from event_log.kafka.settings import KafkaSettings
from tests.integration.fleet import Fleet, running_fleet
from tests.integration.history import History

_QUICK = {"topic.metadata.refresh.interval.ms": 500}

# A session time-out longer than a machine stalls, so that no member is taken for dead. The embedded
# broker needs half of it for each rebalance.
_LASTING_SESSION_MS = {"kafka_settings": 60_000, "embedded_settings": 10_000}

_EACH_BROKER = [
    pytest.param("kafka_settings", id="Apache Kafka", marks=pytest.mark.kafka),
    pytest.param("embedded_settings", id="embedded broker", marks=pytest.mark.broker),
]


def _fleet(kafka: KafkaSettings, topic: str, folder: Path, **properties: int) -> Iterator[Fleet]:
    settings = KafkaSettings(kafka.bootstrap_servers, {**_QUICK, **kafka.properties, **properties})
    with running_fleet(settings, topic, folder) as fleet:
        yield fleet


@pytest.fixture(params=_EACH_BROKER)
def fleet(
    request: pytest.FixtureRequest, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """Four partitions and no consumer yet. Sessions are short, so lost members are noticed soon."""
    yield from _fleet(request.getfixturevalue(request.param), unique_name("uploads"), tmp_path)


@pytest.fixture(params=_EACH_BROKER)
def lasting_fleet(
    request: pytest.FixtureRequest, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet with a long session time-out, so that members belong to the group until they leave."""
    session = {"session.timeout.ms": _LASTING_SESSION_MS[request.param]}
    yield from _fleet(request.getfixturevalue(request.param), unique_name("uploads"), tmp_path, **session)


@pytest.fixture
def kafka_fleet(
    kafka_settings: KafkaSettings, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """A lasting fleet on Apache Kafka, for behaviour that only Kafka has."""
    session = {"session.timeout.ms": _LASTING_SESSION_MS["kafka_settings"]}
    yield from _fleet(kafka_settings, unique_name("uploads"), tmp_path, **session)


@pytest.fixture
def embedded_fleet(
    embedded_settings: KafkaSettings, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet on the embedded broker, for behaviour that is the same on every broker."""
    yield from _fleet(embedded_settings, unique_name("uploads"), tmp_path)


@pytest.fixture
def history(request: pytest.FixtureRequest) -> History:
    """The history of what is published to the test's fleet."""
    names = ("lasting_fleet", "kafka_fleet", "fleet")
    fleet: Fleet = request.getfixturevalue(next(name for name in names if name in request.fixturenames))
    return History(fleet.kafka, fleet.topic)
