"""A client that brokers refuse is told why within seconds, and one without a broker what keeps it away."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress

import pytest
from confluent_kafka import KafkaError

from event_log.errors import FatalLogError, TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.client_errors import ClientErrors
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings, Property
from event_log.kafka.source import KafkaRecordSource
from tests.event_log.event_logs import DEADLINE_SECONDS
from tests.fixtures.refusing_brokers import sasl_broker, web_server

SASL: Mapping[str, Property] = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.username": "us",
    "sasl.password": "secret-word",
}
NOBODY = "127.0.0.1:1"  # a reserved port: connections are refused

REFUSALS = [
    pytest.param(sasl_broker, {**SASL, "sasl.mechanism": "PLAIN"}, "wrong password", id="wrong password"),
    pytest.param(
        sasl_broker, {**SASL, "sasl.mechanism": "SCRAM-SHA-256"}, "Unsupported SASL mechanism", id="mechanism"
    ),
    pytest.param(web_server, {"security.protocol": "SSL"}, "SSL handshake failed", id="TLS to no TLS"),
    pytest.param(web_server, {}, "Invalid response size", id="not Kafka's protocol"),
]


@pytest.mark.parametrize(("serve", "properties", "reason"), REFUSALS)
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda admin: admin.describe_topic("uploads"), id="describe"),
        pytest.param(lambda admin: admin.check_reachable(), id="check"),
    ],
)
def test_an_admin_that_is_refused_says_why_before_its_timeout(
    serve: Callable[[], AbstractContextManager[str]],
    properties: Mapping[str, Property],
    reason: str,
    ask: Callable[[KafkaAdmin], object],
) -> None:
    with serve() as address:
        admin = KafkaAdmin(KafkaSettings(address, properties), request_timeout_seconds=DEADLINE_SECONDS)
        started = time.monotonic()
        with pytest.raises(FatalLogError, match=reason) as refused:
            ask(admin)
    assert time.monotonic() - started < DEADLINE_SECONDS / 2
    assert "CLIPTIDE_KAFKA__PROPERTIES" in str(refused.value)
    assert "secret-word" not in str(refused.value)


def test_a_source_that_is_refused_ends_its_reader() -> None:
    with sasl_broker() as address:
        settings = KafkaSettings(address, {**SASL, "sasl.mechanism": "PLAIN"})
        source = KafkaRecordSource(settings, "group", request_timeout_seconds=0.3)
        with pytest.raises(FatalLogError, match="wrong password"):
            source.describe_topic("uploads")
        with suppress(FatalLogError):  # its own connection is refused too, which may be known by now
            source.close()


def test_a_request_without_an_answer_says_what_its_connection_says() -> None:
    admin = KafkaAdmin(KafkaSettings(NOBODY), request_timeout_seconds=0.5)
    with pytest.raises(TransientLogError, match=r"Connection refused"):
        admin.describe_topic("uploads")


def test_a_record_that_is_not_delivered_says_what_its_connection_says() -> None:
    publisher = KafkaPublisher(KafkaSettings(NOBODY, {"message.timeout.ms": 400}))
    future = publisher.publish("uploads", key=b"key", value=b"value")
    with pytest.raises(TransientLogError, match=r"Connection refused"):
        future.result(DEADLINE_SECONDS)
    publisher.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


SSL = KafkaError(KafkaError._SSL, "certificate verify failed")
HINT = KafkaError(KafkaError._TRANSPORT, "Disconnected: verify that security.protocol is correct")
REFUSED = KafkaError(KafkaError._TRANSPORT, "Connect to 10.0.0.1:9092 failed: Connection refused")
WRONG_PASSWORD = KafkaError(KafkaError._AUTHENTICATION, "wrong password")


@pytest.mark.parametrize(
    ("error", "certain_after_seconds"),
    [
        pytest.param(WRONG_PASSWORD, 0.0, id="password"),
        pytest.param(SSL, 1.0, id="certificate"),
        pytest.param(HINT, 5.0, id="closed connections"),
        pytest.param(REFUSED, None, id="no broker"),
        pytest.param(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 are down"), None, id="count"),
    ],
)
def test_a_refusal_is_certain_when_it_repeats(error: KafkaError, certain_after_seconds: float | None) -> None:
    clock = Clock()
    errors = ClientErrors(clock=clock)
    for _ in range(100):
        errors.report(error)
        if errors.refusal is not None:
            break
        clock.now += 0.1
    if certain_after_seconds is None:
        assert errors.refusal is None
    else:
        assert clock.now == pytest.approx(certain_after_seconds, abs=0.15)


@pytest.mark.parametrize("error", [SSL, HINT, REFUSED])
def test_a_client_that_was_served_once_is_not_refused_by_broken_connections(error: KafkaError) -> None:
    clock = Clock()
    errors = ClientErrors(clock=clock)
    errors.served()
    for _ in range(100):
        errors.report(error)
        clock.now += 1.0
    errors.raise_refusal()
    assert str(error.str()) in str(errors.explained(TransientLogError("timed out")))


@pytest.mark.parametrize(
    ("later", "is_refused"),
    [
        pytest.param([], True, id="nothing else"),
        pytest.param([KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 are down")], True, id="a count"),
        pytest.param([REFUSED], False, id="no broker any more"),
    ],
)
def test_a_refusal_that_is_reported_once_is_certain_when_requests_fail_for_long(
    later: list[KafkaError], is_refused: bool
) -> None:
    """librdkafka does not report again what it would say in the same words."""
    clock = Clock()
    errors = ClientErrors(clock=clock)
    for error in (HINT, *later):
        errors.report(error)
    clock.now = 9.0
    errors.raise_refusal()
    clock.now = 10.0
    if is_refused:
        with pytest.raises(FatalLogError, match=r"security\.protocol"):
            errors.raise_refusal()
    else:
        errors.raise_refusal()


def test_what_was_reported_before_an_answer_explains_no_later_error() -> None:
    errors = ClientErrors()
    errors.report(WRONG_PASSWORD)
    errors.served()
    errors.raise_refusal()
    assert str(errors.explained(TransientLogError("timed out"))) == "timed out"
