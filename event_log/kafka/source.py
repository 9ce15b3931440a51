"""A record source over confluent_kafka's consumer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import methodcaller
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from event_log.errors import FatalLogError, OffsetOutOfRange, TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.errors import error_from_kafka, mapped_kafka_errors
from event_log.kafka.settings import KafkaSettings, build_client, build_consumer_config
from event_log.records import EndOfPartition, Headers, LogRange, Record, TopicDescription
from event_log.source import AssignmentListener

_checked_headers = methodcaller("headers")
"""A call from C, which looks for an error left behind; what Python itself calls often it does not check."""


class KafkaRecordSource:
    """Implements `event_log.source.RecordSource` over one confluent_kafka consumer.

    The listener is called inside `poll` and `close`. What it raises comes out of that
    call: confluent_kafka itself would throw away the records fetched by the same call
    and start the partitions at the group's offset. Here the records are kept for the
    next `poll`, and partitions whose `partitions_assigned` failed are not read.

    While the broker is away librdkafka reconnects by itself: `poll` returns nothing,
    `committed`, `log_range` and `describe_topic` raise `TransientLogError` after the
    request timeout.
    """

    def __init__(
        self, settings: KafkaSettings, group_id: str, *, request_timeout_seconds: float = 30.0
    ) -> None:
        self._log = structlog.get_logger(__name__)
        self._request_timeout = request_timeout_seconds
        self._admin = KafkaAdmin(settings, request_timeout_seconds=request_timeout_seconds)
        config = build_consumer_config(settings, group_id)
        config |= {"error_cb": self._on_client_error, "on_commit": self._on_committed}
        self._consumer: Consumer = build_client(Consumer, config)
        self._topic = ""
        self._epoch = 0
        self._epochs: dict[int, int] = {}  # assigned partition → epoch of its assignment
        self._positions: dict[int, int] = {}  # what `poll` has handed out of the assigned partitions
        self._ends: dict[int, int] = {}
        self._paused: set[int] = set()
        self._ready: list[Record | EndOfPartition] = []
        self._failure: BaseException | None = None
        self._num_unreadable = 0

    def subscribe(self, topic: str, listener: AssignmentListener) -> None:
        """Join the group; `listener` is called inside `poll` from now on."""
        self._topic = topic
        with mapped_kafka_errors(topic=topic):
            self._consumer.subscribe(
                [topic],
                on_assign=lambda _, partitions: self._assign(_numbers(partitions), listener),
                on_revoke=lambda _, partitions: self._drop(_numbers(partitions), listener.partitions_revoked),
                on_lost=lambda _, partitions: self._drop(_numbers(partitions), listener.partitions_lost),
            )

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record | EndOfPartition]:
        """Return what is there, in offset order within a partition; empty after the timeout.

        An error of one partition (`OffsetOutOfRange`) is raised once, before the records
        that the same call fetched for the others; they come with the next `poll`.
        """
        if not self._ready:
            self._fetch(max_records, timeout_seconds)
        self._raise_failure()
        ready, self._ready = self._ready[:max_records], self._ready[max_records:]
        events = [event for event in ready if self._epochs.get(event.partition) == event.assignment_epoch]
        for event in events:
            self._positions[event.partition] = event.next_offset
            if isinstance(event, EndOfPartition):
                self._ends[event.partition] = event.next_offset
        return events

    def pause(self, partitions: Collection[int]) -> None:
        """Stop reading; what was fetched ahead is thrown away and fetched again after `resume`.

        Once everything is paused, librdkafka takes up to a second to begin again.
        """
        with mapped_kafka_errors(topic=self._topic):
            self._consumer.pause(self._topic_partitions(partitions))
        self._paused.update(partitions)

    def resume(self, partitions: Collection[int]) -> None:
        with mapped_kafka_errors(topic=self._topic):
            self._consumer.resume(self._topic_partitions(partitions))
        self._paused.difference_update(partitions)

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Offset commit, best effort: what fails is logged, the outcome of `close` waits for it."""
        if not next_offsets:
            return
        offsets = [TopicPartition(self._topic, number, offset) for number, offset in next_offsets.items()]
        with mapped_kafka_errors(topic=self._topic):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def committed(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        """Return the group's committed next offsets; None where it has none."""
        with mapped_kafka_errors(topic=self._topic):
            answers = self._consumer.committed(
                self._topic_partitions(partitions), timeout=self._request_timeout
            )
        for answer in answers:
            if answer.error is not None:
                raise error_from_kafka(answer.error, topic=self._topic, partition=answer.partition)
        return {answer.partition: answer.offset if answer.offset >= 0 else None for answer in answers}

    def log_range(self, partition: int) -> LogRange:
        """Ask the broker; records of transactions still open are beyond the range.

        The range ends nowhere before what this source has read, whatever the broker answers,
        unless it has refused to read on from there.
        """
        with mapped_kafka_errors(topic=self._topic, partition=partition):
            offsets = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=self._request_timeout, cached=False
            )
        if offsets is None:
            raise TransientLogError(f"{self._topic}-{partition}: no answer about the log's range")
        return LogRange(offsets[0], max(offsets[1], self._least_log_end(partition, offsets[1])))

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe the topic, or raise `TopicMissing`."""
        return self._admin.describe_topic(topic)

    def close(self) -> None:
        """Leave the group; `partitions_revoked` is called for what is still assigned."""
        self._consumer.close()
        self._raise_failure()

    def _least_log_end(self, partition: int, answered: int) -> int:
        """Return where the log ends at least, going by what was read.

        Kafka's answer needs no correction. The embedded broker's runs up to a batch behind, so one
        that does not exceed the position proves nothing unless that position was reported as the end.
        """
        position = self._positions.get(partition, 0)
        if answered > position or self._ends.get(partition) == position or not position:
            return position
        fetched = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return position if fetched is None else max(position, fetched[1])

    def _fetch(self, max_records: int, timeout_seconds: float) -> None:
        # consume(n, timeout) sits out its timeout unless n records come; waiting for the
        # first one alone and then taking what is there answers at once and in batches.
        messages = self._consumer.consume(1, timeout_seconds)
        if messages and max_records > 1:
            messages += self._consumer.consume(max_records - 1, 0)
        for message in messages:
            event = self._event_from(message)
            if event is not None:
                self._ready.append(event)

    def _event_from(self, message: Any) -> Record | EndOfPartition | None:
        error = message.error()
        epoch = self._epochs.get(message.partition())
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._on_message_error(error, message)
            return None
        if epoch is None:
            return None
        if error is not None:
            # The offset of this event is where the next fetch starts: behind markers and gaps.
            return EndOfPartition(message.partition(), message.offset(), epoch)
        return self._record_from(message, epoch)

    def _record_from(self, message: Any, assignment_epoch: int) -> Record:
        return Record(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            key=message.key(),
            value=message.value(),
            headers=self._headers_from(message),
            timestamp_ms=message.timestamp()[1],
            assignment_epoch=assignment_epoch,
        )

    def _headers_from(self, message: Any) -> Headers:
        """The record's headers; none where the name of one is not UTF-8.

        Kafka takes any bytes for a name, confluent_kafka fails on them (it returns a result with the
        error still set, hence the SystemError): a record that nobody could read would stop the log.
        """
        try:
            return tuple(_checked_headers(message) or ())
        except (SystemError, UnicodeDecodeError):
            self._note_unreadable(message)
            return ()

    def _note_unreadable(self, message: Any) -> None:
        """Log the first, second, fourth, eighth … of such records: a flood must not fill the log."""
        self._num_unreadable += 1
        if self._num_unreadable.bit_count() == 1:
            place = f"{message.topic()}-{message.partition()}@{message.offset()}"
            self._log.warning("headers are unreadable and left out", record=place, count=self._num_unreadable)

    def _on_message_error(self, error: KafkaError, message: Any) -> None:
        """Keep what the reader must hear of; librdkafka retries the rest by itself."""
        topic = message.topic() or self._topic
        mapped = error_from_kafka(error, topic=topic, partition=message.partition())
        if isinstance(mapped, TransientLogError):
            self._log.warning("event log is not answering", error=str(mapped))
            return
        if isinstance(mapped, OffsetOutOfRange):
            self._forget_read(mapped.partition)  # it may have been read of a log that is gone
        self._fail(mapped)

    def _forget_read(self, partition: int) -> None:
        self._positions.pop(partition, None)
        self._ends.pop(partition, None)

    def _on_client_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._AUTHENTICATION:
            self._fail(FatalLogError(error.str()))
        else:
            self._log.warning("event log client reports", error=error.name(), detail=error.str())

    def _on_committed(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        failed = [p.error.name() for p in partitions if p.error is not None]
        if error is not None or failed:
            reason = failed[0] if error is None else error.name()
            self._log.warning("offset commit failed", error=reason, partitions=_numbers(partitions))

    def _assign(self, partitions: Collection[int], listener: AssignmentListener) -> None:
        positions: list[TopicPartition] = []
        try:
            if partitions:  # many a cooperative rebalance brings nothing new
                self._epoch += 1
                starts = listener.partitions_assigned(partitions, self._epoch)
                positions = [TopicPartition(self._topic, number, starts[number]) for number in partitions]
        except BaseException as error:  # noqa: BLE001 - poll raises it
            self._fail(error)
        self._epochs |= {position.partition: self._epoch for position in positions}
        self._answer_rebalance(self._consumer.incremental_assign, positions)

    def _drop(self, partitions: Collection[int], tell: Callable[[Collection[int]], None]) -> None:
        read = [number for number in partitions if number in self._epochs]
        try:
            if read:
                tell(read)
        except BaseException as error:  # noqa: BLE001 - poll raises it
            self._fail(error)
        for number in read:
            del self._epochs[number]
            self._forget_read(number)
        # librdkafka would keep a partition paused that leaves and comes back
        self.resume(self._paused.intersection(read))
        self._answer_rebalance(self._consumer.incremental_unassign, self._topic_partitions(read))

    def _answer_rebalance(
        self, answer: Callable[[list[TopicPartition]], None], partitions: list[TopicPartition]
    ) -> None:
        # An answer must be given even for no partition: else confluent_kafka gives its own.
        try:
            answer(partitions)
        except KafkaException as error:
            self._fail(error_from_kafka(error.args[0], topic=self._topic))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        else:
            self._log.error("a second failure before the first was raised", error=repr(error))

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _topic_partitions(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in partitions]


def _numbers(partitions: Sequence[TopicPartition]) -> list[int]:
    return [partition.partition for partition in partitions]
