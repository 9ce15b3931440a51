"""Apache Kafka refuses a client, or dies under one: what the consumer and the commands are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from event_log.errors import EventLogError, FatalLogError, TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings, Property
from event_log.kafka.source import KafkaRecordSource
from tests.event_log.event_logs import DEADLINE_SECONDS, OnBroker, Reader
from tests.kafka.apache_kafka import ApacheKafka, ApacheKafkaUnavailable

pytestmark = pytest.mark.kafka

SASL: Mapping[str, Property] = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "us",
    "sasl.password": "right",
}

REFUSALS = [
    pytest.param("sasl_servers", {**SASL, "sasl.password": "secret"}, "Authentication failed", id="password"),
    pytest.param("sasl_servers", {**SASL, "sasl.username": "nobody"}, "Authentication failed", id="user"),
    pytest.param(
        "sasl_servers",
        {**SASL, "sasl.mechanism": "SCRAM-SHA-256"},
        "(?i)unsupported SASL mechanism",
        id="mechanism",
    ),
    pytest.param("sasl_servers", {}, "security.protocol", id="no SASL to SASL"),
    pytest.param("bootstrap_servers", {"security.protocol": "SSL"}, "SSL handshake", id="TLS to no TLS"),
    pytest.param("bootstrap_servers", SASL, "(?i)SASL", id="SASL to no SASL"),
]


@pytest.mark.parametrize(("listener", "properties", "reason"), REFUSALS)
def test_a_client_that_kafka_refuses_is_told_why_before_its_timeout(
    apache_kafka: ApacheKafka, listener: str, properties: Mapping[str, Property], reason: str
) -> None:
    settings = KafkaSettings(getattr(apache_kafka, listener), properties)
    started = time.monotonic()
    admin = KafkaAdmin(settings, request_timeout_seconds=DEADLINE_SECONDS)
    with pytest.raises(FatalLogError, match=reason) as refused:
        admin.check_reachable()
    assert time.monotonic() - started < DEADLINE_SECONDS / 2
    assert "CLIPTIDE_KAFKA__PROPERTIES" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_right_credentials_are_served(apache_kafka: ApacheKafka, unique_name: Callable[[str], str]) -> None:
    settings = KafkaSettings(apache_kafka.sasl_servers, SASL)
    topic = OnBroker(settings).create_topic()
    publisher = KafkaPublisher(settings)
    delivered = publisher.publish(topic, key=b"key", value=b"value").result(DEADLINE_SECONDS)
    assert delivered.next_offset == 1
    publisher.close()
    source = KafkaRecordSource(settings, unique_name("group"))
    reader = Reader(source, topic)
    reader.poll_to_ends({0: 1})
    assert reader.values == [b"value"]
    source.close()


def ask_until_it_fails(source: KafkaRecordSource) -> EventLogError:
    while True:
        try:
            source.log_range(0)
        except EventLogError as error:
            return error


def ask_until_it_answers(source: KafkaRecordSource) -> None:
    """Half a second is little for the first answer of a broker that has just begun."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            source.log_range(0)
            return
        except TransientLogError:
            assert time.monotonic() < deadline


def test_a_broker_that_is_killed_while_requests_are_on_their_way_is_waited_for() -> None:
    """Its own broker, because the others' must live."""
    try:
        with ApacheKafka() as kafka:
            settings = KafkaSettings(kafka.bootstrap_servers, {"message.timeout.ms": 3000})
            topic = OnBroker(settings).create_topic()
            publisher = KafkaPublisher(settings)
            publisher.publish(topic, key=b"key", value=b"value").result(DEADLINE_SECONDS)
            sources = [
                KafkaRecordSource(settings, f"group-{number}", request_timeout_seconds=0.5)
                for number in range(4)
            ]
            readers = [Reader(source, topic) for source in sources]
            for source in sources:
                ask_until_it_answers(source)
            with ThreadPoolExecutor(len(sources)) as pool:
                asking = [pool.submit(ask_until_it_fails, source) for source in sources]
                kafka.kill()
                errors = [future.result(DEADLINE_SECONDS) for future in asking]
            undelivered = publisher.publish(topic, key=b"key", value=b"value")
            for reader in readers:
                reader.poll(timeout_seconds=0.1)
            failure = undelivered.exception(DEADLINE_SECONDS)
    except ApacheKafkaUnavailable as error:
        pytest.skip(f"Apache Kafka: {error}")
    assert {type(error) for error in errors} == {TransientLogError}
    assert isinstance(failure, TransientLogError)
    publisher.close()
    for source in sources:
        source.close()
