"""Topics: describe them, and create them if that is allowed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent import futures as concurrent_futures
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    OffsetSpec,
)
from confluent_kafka.cimpl import NewTopic

from event_log.errors import TopicMissing, TransientLogError
from event_log.kafka.client_errors import ClientErrors
from event_log.kafka.errors import mapped_kafka_errors
from event_log.kafka.settings import KafkaSettings, build_admin_config, build_client
from event_log.records import TopicDescription

_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # sixteen zero bytes: what librdkafka shows without topic ids
_BROKER_DEFAULT = -1
_LOOK_SECONDS = 0.1  # how often the client's reports are read while a request is under way


@dataclass(frozen=True, slots=True)
class TopicCreation:
    """How to create a topic. `config` holds the broker's topic properties (`retention.ms`, …)."""

    num_partitions: int
    replication_factor: int = _BROKER_DEFAULT
    config: Mapping[str, str | int] = field(default_factory=dict)


class KafkaAdmin:
    """Manages topics. Thread-safe. A call that takes `request_timeout_seconds` raises `TransientLogError`.

    If brokers refuse the client (password, mechanism, TLS, protocol), a call raises `FatalLogError` as soon
    as that is certain.
    """

    def __init__(self, settings: KafkaSettings, *, request_timeout_seconds: float = 30.0) -> None:
        self._timeout = request_timeout_seconds
        self._errors = ClientErrors()
        config = build_admin_config(settings) | {"error_cb": self._errors.report}
        self._client = build_client(AdminClient, config)

    def check_reachable(self) -> None:
        """Wait until a broker answers."""
        deadline = time.monotonic() + self._timeout
        while (rest := deadline - time.monotonic()) > 0:
            with suppress(TransientLogError), mapped_kafka_errors():
                self._client.list_topics(timeout=min(rest, _LOOK_SECONDS))
                return self._errors.served()
            self._look_for_refusal()
        raise self._errors.explained(TransientLogError(f"no broker answers within {self._timeout:g} seconds"))

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe the topic, or raise `TopicMissing`."""
        futures = self._client.describe_topics(TopicCollection([topic]), request_timeout=self._timeout)
        description = self._result(futures[topic], topic)
        return TopicDescription(topic, _topic_id_from(description), len(description.partitions))

    def high_watermark(self, topic: str, partition: int) -> int:
        """Return the offset after the last record that every in-sync replica has, whether readable or not."""
        place = TopicPartition(topic, partition)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        futures = self._client.list_offsets(
            {place: latest},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._timeout,
        )
        return int(self._result(futures[place], topic).offset)

    def topic_settings(self, topic: str) -> Mapping[str, str]:
        """Return the topic's settings (`retention.ms`, …), the broker's defaults included."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        futures = self._client.describe_configs([resource], request_timeout=self._timeout)
        entries = self._result(futures[resource], topic)
        return {name: str(entry.value) for name, entry in entries.items() if entry.value is not None}

    def create_topic(self, topic: str, creation: TopicCreation) -> TopicDescription:
        """Create the topic if it is missing. Return its description, whoever created it."""
        new = NewTopic(
            topic,
            num_partitions=creation.num_partitions,
            replication_factor=creation.replication_factor,
            config={name: str(value) for name, value in creation.config.items()},
        )
        futures = self._client.create_topics([new], request_timeout=self._timeout)
        with suppress(_AlreadyExists):
            self._result(futures[topic], topic)
        return self._wait_for_topic(topic)

    def ensure_topic(self, topic: str, creation: TopicCreation | None) -> TopicDescription:
        """Describe the topic. If it is missing, create it; without a `creation` raise `TopicMissing`."""
        try:
            return self.describe_topic(topic)
        except TopicMissing:
            if creation is None:
                raise
            return self.create_topic(topic, creation)

    def delete_topic(self, topic: str) -> None:
        """Delete the topic, or raise `TopicMissing`."""
        futures = self._client.delete_topics([topic], request_timeout=self._timeout)
        self._result(futures[topic], topic)

    def _wait_for_topic(self, topic: str) -> TopicDescription:
        """Wait until the broker knows the topic: its controller may have created it a moment earlier."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self.describe_topic(topic)
            except TopicMissing:
                if time.monotonic() >= deadline:
                    raise TransientLogError(f"topic {topic!r} was created but does not show up") from None
                time.sleep(0.05)

    def _result(self, future: Future[Any], topic: str) -> Any:
        try:
            with mapped_kafka_errors(topic=topic):
                answer = self._answer(future, topic)
        except TransientLogError as error:
            self._look_for_refusal()
            raise self._errors.explained(error) from error
        self._errors.served()
        return answer

    def _answer(self, future: Future[Any], topic: str) -> Any:
        self._wait(future)
        try:
            return future.result(0)
        except concurrent_futures.TimeoutError as error:  # not the builtin one before 3.11
            raise TransientLogError(f"no answer about topic {topic!r}") from error
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise _AlreadyExists from error
            raise

    def _wait(self, future: Future[Any]) -> None:
        """Wait for the answer, and read the client's reports, which may tell that none will come."""
        deadline = time.monotonic() + self._timeout + 5.0  # librdkafka's own timeout ends first
        while not future.done() and time.monotonic() < deadline:
            concurrent_futures.wait([future], _LOOK_SECONDS)
            if not future.done():
                self._look_for_refusal()

    def _look_for_refusal(self) -> None:
        self._client.poll(0)  # calls `ClientErrors.report`
        self._errors.raise_refusal()


class _AlreadyExists(Exception):
    """Another client created the topic first."""


def _topic_id_from(description: Any) -> str | None:
    topic_id = None if description.topic_id is None else str(description.topic_id)
    return None if topic_id == _NO_TOPIC_ID else topic_id
