"""How settings become librdkafka's configuration."""

from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs

from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.client_log import LibrdkafkaLog
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import (
    KafkaSettings,
    Property,
    build_admin_config,
    build_consumer_config,
    build_producer_config,
)
from event_log.kafka.source import KafkaRecordSource


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.auto.commit", True),
        ("auto.commit.enable", True),
        ("auto.offset.reset", "latest"),
        ("enable.partition.eof", False),
        ("isolation.level", "read_uncommitted"),
        ("partition.assignment.strategy", "range"),
        ("group.id", "other"),
        ("group.protocol", "consumer"),
        ("enable.idempotence", False),
        ("acks", 1),
        ("request.required.acks", 1),
        ("partitioner", "consistent_random"),
        ("bootstrap.servers", "elsewhere:9092"),
        ("metadata.broker.list", "elsewhere:9092"),
    ],
)
def test_a_property_on_which_a_guarantee_rests_cannot_be_set(name: str, value: Property) -> None:
    with pytest.raises(ValueError, match=r"^CLIPTIDE_KAFKA__PROPERTIES: .* cannot be set") as caught:
        KafkaSettings("localhost:9092", {name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_other_property_reaches_every_client() -> None:
    properties: dict[str, Property] = {
        "security.protocol": "SASL_SSL",
        "client.rack": "eu-1a",
        "group.instance.id": "consumer-3",
        "fetch.wait.max.ms": 50,
        "socket.keepalive.enable": True,
    }
    settings = KafkaSettings("localhost:9092", properties)
    for config in (
        build_admin_config(settings),
        build_consumer_config(settings, "group"),
        build_producer_config(settings),
    ):
        assert properties.items() <= config.items()
        assert config["bootstrap.servers"] == "localhost:9092"


def test_a_default_can_be_overridden() -> None:
    settings = KafkaSettings(
        "localhost:9092", {"queued.max.messages.kbytes": 1024, "compression.type": "lz4"}
    )
    assert build_consumer_config(settings, "group")["queued.max.messages.kbytes"] == 1024
    assert build_producer_config(settings)["compression.type"] == "lz4"


def test_a_reader_decides_its_positions_itself() -> None:
    config = build_consumer_config(KafkaSettings(), "group")
    assert config["group.id"] == "group"
    assert config["enable.auto.commit"] is False
    assert config["auto.offset.reset"] == "error"
    assert config["enable.partition.eof"] is True
    assert config["isolation.level"] == "read_committed"
    assert config["partition.assignment.strategy"] == "cooperative-sticky"


def test_a_publisher_is_idempotent_and_places_keys_as_java_does() -> None:
    config = build_producer_config(KafkaSettings())
    assert (config["enable.idempotence"], config["acks"]) == (True, "all")
    assert config["partitioner"] == "murmur2_random"
    assert config["message.max.bytes"] > 10 * 1024 * 1024


@pytest.mark.parametrize("name", ["no.such.property", "session.timeout.ms"])
def test_a_property_that_librdkafka_refuses_is_named_in_one_line(name: str) -> None:
    settings = KafkaSettings("localhost:9092", {name: "nonsense"})
    for build in (KafkaAdmin, KafkaPublisher, lambda s: KafkaRecordSource(s, "group")):
        with pytest.raises(ValueError, match=r"^CLIPTIDE_KAFKA__PROPERTIES: ") as caught:
            build(settings)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_librdkafkas_lines_become_log_events() -> None:
    with capture_logs() as events:
        LibrdkafkaLog().log(40, "%s [%s] %s", "FAIL", "cliptide#consumer-1", "connection refused")
    assert events == [
        {
            "event": "librdkafka",
            "log_level": "error",
            "facility": "FAIL",
            "client": "cliptide#consumer-1",
            "message": "connection refused",
        }
    ]


def test_a_line_that_librdkafka_repeats_is_told_once_a_minute_with_how_many_were_left_out() -> None:
    seconds = iter(range(131))
    with capture_logs() as events:
        log = LibrdkafkaLog(clock=lambda: float(next(seconds)))
        for _ in range(130):
            log.log(40, "%s [%s] %s", "FAIL", "cliptide#consumer-1", "connection refused")
        log.log(20, "%s [%s] %s", "INFO", "cliptide#consumer-1", "something else")
    assert [event.get("left_out") for event in events] == [None, 59, 59, None]


def test_all_clients_of_the_same_settings_share_one_log() -> None:
    settings = KafkaSettings()
    configs = (
        build_admin_config(settings),
        build_consumer_config(settings, "g"),
        build_producer_config(settings),
    )
    assert len({id(config["logger"]) for config in configs}) == 1
    assert KafkaSettings() == settings


@pytest.mark.parametrize(
    "name",
    ["error_cb", "stats_cb", "throttle_cb", "oauth_cb", "log_cb", "on_commit", "logger"],
)
def test_a_key_of_pythons_configuration_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^CLIPTIDE_KAFKA__PROPERTIES: {name} cannot be set") as caught:
        KafkaSettings("localhost:9092", {name: "print"})
    assert "\n" not in str(caught.value)


def test_a_property_meant_for_another_client_is_no_warning() -> None:
    structlog.reset_defaults()
    with capture_logs() as events:
        LibrdkafkaLog().log(30, "%s [%s] %s", "CONFWARN", "cliptide#producer-1", "is a consumer property")
    assert [event["log_level"] for event in events] == ["debug"]


@pytest.mark.parametrize(
    "address", ["http://kafka:9092", "kafka-1:9092, https://kafka-2:9092", "tcp://kafka"]
)
def test_an_address_of_another_protocol_is_refused_by_its_variable(address: str) -> None:
    with pytest.raises(
        ValueError, match=r"^CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS: \w+:// is no protocol of Kafka"
    ):
        KafkaSettings(address)


@pytest.mark.parametrize(
    "address", ["kafka", "[::1]:9092", "SSL://kafka:9093,plaintext://kafka:9092", "a:1,b:2"]
)
def test_the_addresses_that_librdkafka_takes_are_taken(address: str) -> None:
    assert build_admin_config(KafkaSettings(address))["bootstrap.servers"] == address
