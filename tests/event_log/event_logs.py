"""The event logs under test: one interface over the in-memory log and brokers, and what tests do to them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from confluent_kafka import ConsumerGroupState, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from event_log.memory.clients import MemoryLog, MemoryPublisher, MemoryRecordSource
from event_log.publisher import NonBlockingPublisher
from event_log.records import EndOfPartition, Record
from event_log.source import RecordSource

DEADLINE_SECONDS = 60.0  # fails a test that waits in vain; long enough for a busy machine

Opened = TypeVar("Opened", KafkaRecordSource, KafkaPublisher)


class EventLogUnderTest(Protocol):
    def create_topic(self, num_partitions: int = 1) -> str: ...
    def create_again(self, topic: str) -> None:
        """Delete the topic and create one of the same name."""

    def source(self, group: str) -> RecordSource: ...
    def stalling_source(self, group: str) -> RecordSource:
        """Return a member that loses its partitions soon after its last poll."""

    def stall(self, source: RecordSource, group: str) -> None:
        """Wait without polling until the log has expelled the only member of the group."""

    def publisher(self) -> NonBlockingPublisher: ...
    def append(self, topic: str, partition: int, values: Sequence[bytes]) -> None: ...
    def append_transaction(
        self, topic: str, partition: int, values: Sequence[bytes], *, is_committed: bool
    ) -> None: ...
    def open_transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Callable[[], None]:
        """Append records of a transaction, and return the function that commits it."""

    def truncate(self, topic: str, partition: int, first_offset: int) -> None: ...
    def close(self) -> None: ...


class InMemory:
    """A `MemoryLog`."""

    def __init__(self) -> None:
        self.log = MemoryLog()

    def create_topic(self, num_partitions: int = 1) -> str:
        return self.log.create_topic(_new_topic_name(), num_partitions).name

    def create_again(self, topic: str) -> None:
        num_partitions = self.log.describe_topic(topic).num_partitions
        self.log.delete_topic(topic)
        self.log.create_topic(topic, num_partitions)

    def source(self, group: str) -> MemoryRecordSource:
        return MemoryRecordSource(self.log, group)

    stalling_source = source

    def stall(self, source: RecordSource, group: str) -> None:
        assert isinstance(source, MemoryRecordSource)
        source.expel()

    def publisher(self) -> MemoryPublisher:
        return MemoryPublisher(self.log)

    def append(self, topic: str, partition: int, values: Sequence[bytes]) -> None:
        for value in values:
            self.log.append(topic, partition, value=value)

    def append_transaction(
        self, topic: str, partition: int, values: Sequence[bytes], *, is_committed: bool
    ) -> None:
        for value in values:
            offset = self.log.append(topic, partition, value=value).offset
            if not is_committed:
                self.log.remove(topic, partition, offset)
        self.log.append_marker(topic, partition)

    def open_transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Callable[[], None]:
        self.log.hold_back(topic, partition)
        self.append(topic, partition, values)
        return lambda: self.log.let_go(topic, partition)

    def truncate(self, topic: str, partition: int, first_offset: int) -> None:
        self.log.truncate(topic, partition, first_offset)

    def close(self) -> None:
        pass


class OnBroker:
    """Any Kafka-compatible broker."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = KafkaAdmin(settings, request_timeout_seconds=DEADLINE_SECONDS)
        self._opened: list[KafkaRecordSource | KafkaPublisher] = []
        self._group_suffix = uuid.uuid4().hex[:8]

    def create_topic(self, num_partitions: int = 1) -> str:
        return self._create(_new_topic_name(), num_partitions)

    def create_again(self, topic: str) -> None:
        described = self._admin.describe_topic(topic)
        self._admin.delete_topic(topic)
        wait_until(lambda: self._create_anew(topic, described.topic_id, described.num_partitions))

    def source(self, group: str) -> KafkaRecordSource:
        return self._track(KafkaRecordSource(self._settings, self._group_id(group)))

    def stalling_source(self, group: str) -> KafkaRecordSource:
        patience = {"max.poll.interval.ms": self._settings.properties["session.timeout.ms"]}
        settings = KafkaSettings(self._settings.bootstrap_servers, {**self._settings.properties, **patience})
        return self._track(KafkaRecordSource(settings, self._group_id(group)))

    def stall(self, source: RecordSource, group: str) -> None:
        admin = AdminClient({"bootstrap.servers": self._settings.bootstrap_servers})
        group_id = self._group_id(group)

        def is_empty() -> bool:
            described = admin.describe_consumer_groups([group_id])[group_id].result(DEADLINE_SECONDS)
            return bool(described.state == ConsumerGroupState.EMPTY)

        wait_until(is_empty)

    def publisher(self) -> KafkaPublisher:
        return self._track(KafkaPublisher(self._settings))

    def append(self, topic: str, partition: int, values: Sequence[bytes]) -> None:
        # One record per batch, because only then is the embedded broker's latest offset right.
        producer = self._producer({"linger.ms": 0})
        for value in values:
            producer.produce(topic, value=value, partition=partition)
            assert producer.flush(DEADLINE_SECONDS) == 0

    def append_transaction(
        self, topic: str, partition: int, values: Sequence[bytes], *, is_committed: bool
    ) -> None:
        producer = self._producer_in_transaction(topic, partition, values)
        end = producer.commit_transaction if is_committed else producer.abort_transaction
        end(DEADLINE_SECONDS)

    def open_transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Callable[[], None]:
        producer = self._producer_in_transaction(topic, partition, values)
        return lambda: producer.commit_transaction(DEADLINE_SECONDS)

    def truncate(self, topic: str, partition: int, first_offset: int) -> None:
        admin = AdminClient({"bootstrap.servers": self._settings.bootstrap_servers})
        for future in admin.delete_records([TopicPartition(topic, partition, first_offset)]).values():
            future.result(DEADLINE_SECONDS)

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    def _create(self, topic: str, num_partitions: int) -> str:
        creation = TopicCreation(num_partitions, config={"max.message.bytes": MAX_RECORD_BYTES})
        return self._admin.create_topic(topic, creation).name

    def _create_anew(self, topic: str, old_topic_id: str | None, num_partitions: int) -> bool:
        self._create(topic, num_partitions)
        return self._admin.describe_topic(topic).topic_id != old_topic_id

    def _group_id(self, group: str) -> str:
        return f"{group}-{self._group_suffix}"

    def _producer_in_transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Producer:
        """Return a producer whose transaction is open and holds the values, acknowledged."""
        producer = self._producer({"transactional.id": f"transaction-{uuid.uuid4().hex}"})
        producer.init_transactions(DEADLINE_SECONDS)
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value=value, partition=partition)
        assert producer.flush(DEADLINE_SECONDS) == 0
        return producer

    def _producer(self, config: Mapping[str, Any]) -> Producer:
        return Producer({"bootstrap.servers": self._settings.bootstrap_servers, **config})

    def _track(self, opened: Opened) -> Opened:
        self._opened.append(opened)
        return opened


class RecordingListener:
    """Starts where `checkpoint` says, by default at 0, and remembers every call."""

    def __init__(self, checkpoint: Mapping[int, int] | None = None) -> None:
        self.checkpoint = {} if checkpoint is None else checkpoint
        self.assigned: set[int] = set()
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.epochs: list[int] = []
        self.epoch_of: dict[int, int] = {}
        self.fail_on: dict[str, Exception] = {}

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        self._note("assigned", partitions)
        self.epochs.append(assignment_epoch)
        self.epoch_of |= dict.fromkeys(partitions, assignment_epoch)
        self.assigned |= set(partitions)
        return {partition: self.checkpoint.get(partition, 0) for partition in partitions}

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        self._note("revoked", partitions)
        self.assigned -= set(partitions)

    def partitions_lost(self, partitions: Collection[int]) -> None:
        self._note("lost", partitions)
        self.assigned -= set(partitions)

    def _note(self, call: str, partitions: Collection[int]) -> None:
        self.calls.append((call, tuple(sorted(partitions))))
        if call in self.fail_on:
            raise self.fail_on.pop(call)


class Reader:
    """A source with its listener, and everything that it returned."""

    def __init__(self, source: RecordSource, topic: str, checkpoint: dict[int, int] | None = None) -> None:
        self.source = source
        self.topic = topic
        self.checkpoint: dict[int, int] = {} if checkpoint is None else checkpoint
        self.listener = RecordingListener(self.checkpoint)
        self.records: list[Record] = []
        self.ends: dict[int, int] = {}
        source.subscribe(topic, self.listener)

    def poll(self, max_records: int = 500, timeout_seconds: float = 0.05) -> None:
        for event in self.source.poll(max_records, timeout_seconds):
            if isinstance(event, EndOfPartition):
                self.ends[event.partition] = event.next_offset
            else:
                self.records.append(event)
            self.checkpoint[event.partition] = event.next_offset

    def poll_until(self, condition: Callable[[], bool], *others: Reader) -> None:
        """Poll this reader and the others in turn until the condition holds."""

        def check() -> bool:
            for reader in (self, *others):
                reader.poll()
            return condition()

        wait_until(check)

    def poll_to_ends(self, ends: Mapping[int, int]) -> None:
        self.poll_until(lambda: self.ends == ends)

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def numbered(count: int) -> list[bytes]:
    return [f"value {number}".encode() for number in range(count)]


def _new_topic_name() -> str:
    return f"uploads-{uuid.uuid4().hex[:8]}"
