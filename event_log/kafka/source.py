"""A record source over confluent_kafka's consumer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from event_log.errors import FatalLogError, OffsetOutOfRange, RecordUnreadable, TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.client_errors import ClientErrors
from event_log.kafka.client_log import RepeatLimit
from event_log.kafka.errors import error_from_kafka, error_of_record, mapped_kafka_errors
from event_log.kafka.headers import HeaderReader
from event_log.kafka.settings import KafkaSettings, build_client, build_consumer_config
from event_log.records import EndOfPartition, LogRange, Record, TopicDescription
from event_log.source import AssignmentListener

_JOIN_SECONDS = 5.0
"""How long `close` waits for the end of a join. librdkafka waits as long for the answer to its leave."""
_MEMBER_ID_SECONDS = 1.0
"""How long `close` waits for the first answer to a join, which gives the member its id."""
_JOIN_POLL_SECONDS = 0.05


class KafkaRecordSource:
    """Implements `event_log.source.RecordSource` over one confluent_kafka consumer.

    `poll` and `close` call the listener and raise what it raises. The records that were fetched by the
    same call are kept for the next `poll`, and a partition whose `partitions_assigned` failed is not
    read. (Left alone, confluent_kafka would throw the records away and read from the group's offset.)

    While the broker is away, librdkafka reconnects by itself. Meanwhile `poll` returns nothing;
    `committed`, `log_range` and `describe_topic` raise `TransientLogError` after the request timeout.
    """

    def __init__(
        self, settings: KafkaSettings, group_id: str, *, request_timeout_seconds: float = 30.0
    ) -> None:
        self._log = structlog.get_logger(__name__)
        self._request_timeout = request_timeout_seconds
        self._repeats = RepeatLimit()
        self._errors = ClientErrors()
        self._admin = KafkaAdmin(settings, request_timeout_seconds=request_timeout_seconds)
        config = build_consumer_config(settings, group_id)
        config |= {"error_cb": self._on_client_error, "on_commit": self._on_committed}
        self._consumer: Consumer = build_client(Consumer, config)
        self._topic = ""
        self._epoch = 0
        self._epochs: dict[int, int] = {}  # assigned partition → epoch of its assignment
        self._positions: dict[int, int] = {}  # assigned partition → next offset after what `poll` returned
        self._ends: dict[int, int] = {}
        self._paused: set[int] = set()
        self._ready: list[Record | EndOfPartition] = []
        self._joins_group = True
        self._is_joining = False
        self._is_closing = False
        self._failure: BaseException | None = None
        self._headers = HeaderReader()

    def subscribe(self, topic: str, listener: AssignmentListener) -> None:
        """Join the group. From now on `poll` calls the listener."""
        self._topic = topic
        with mapped_kafka_errors(topic=topic):
            self._consumer.subscribe(
                [topic],
                on_assign=lambda _, partitions: self._assign(_numbers(partitions), listener),
                on_revoke=lambda _, partitions: self._drop(_numbers(partitions), listener.partitions_revoked),
                on_lost=lambda _, partitions: self._drop(_numbers(partitions), listener.partitions_lost),
            )
        self._is_joining = True

    def assign(self, topic: str, partitions: Collection[int], listener: AssignmentListener) -> None:
        """Read these partitions without joining the group. `poll` raises what the listener has raised."""
        self._topic = topic
        self._joins_group = False
        self._assign(partitions, listener)

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record | EndOfPartition]:
        """Return the records that are there, in offset order within a partition; none after the timeout.

        An error of one partition is raised once (`OffsetOutOfRange`), or each time that the client meets it
        (`RecordUnreadable`, about once a second). The next `poll` returns the records
        that the same call fetched for the other partitions.
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
        """Stop reading these partitions. Prefetched records are dropped, and fetched again after `resume`.

        If every partition is paused, `resume` takes up to a second to have an effect.
        """
        with mapped_kafka_errors(topic=self._topic):
            self._consumer.pause(self._topic_partitions(partitions))
        self._paused.update(partitions)

    def resume(self, partitions: Collection[int]) -> None:
        with mapped_kafka_errors(topic=self._topic):
            self._consumer.resume(self._topic_partitions(partitions))
        self._paused.difference_update(partitions)

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Offset commit, asynchronous: a failure is logged only. `close` waits for commits under way."""
        if not next_offsets:
            return
        offsets = [TopicPartition(self._topic, number, offset) for number, offset in next_offsets.items()]
        with mapped_kafka_errors(topic=self._topic):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def committed(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        """Return the next offsets that the group has committed; None for a partition without one."""
        with self._explained_errors():
            answers = self._consumer.committed(
                self._topic_partitions(partitions), timeout=self._request_timeout
            )
        for answer in answers:
            if answer.error is not None:
                raise error_from_kafka(answer.error, topic=self._topic, partition=answer.partition)
        return {answer.partition: answer.offset if answer.offset >= 0 else None for answer in answers}

    def log_range(self, partition: int) -> LogRange:
        """Ask the broker for the range, which includes the records that an open transaction holds back.

        The end is never before the position of this source, even if the broker answers less, unless the
        broker has refused to read on from that position.
        """
        with self._explained_errors(partition):
            # The high watermark is asked first. The end of what can be read is lower only if it is held back.
            high_watermark = self._admin.high_watermark(self._topic, partition)
            offsets = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=self._request_timeout, cached=False
            )
        if offsets is None:
            raise TransientLogError(f"{self._topic}-{partition}: the broker did not tell the log's range")
        first_offset, readable = offsets
        next_offset = max(high_watermark, readable, self._least_log_end(partition, readable))
        return LogRange(first_offset, next_offset, readable if readable < high_watermark else None)

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe the topic, or raise `TopicMissing`."""
        return self._admin.describe_topic(topic)

    def close(self) -> None:
        """Call `partitions_revoked` for what is still assigned, then leave the group.

        A join that is under way is waited for, because the embedded broker keeps a member that leaves before
        the end of its join as the leader of the group, and then assigns nothing to anybody. Partitions that
        the join assigns are not taken: the listener hears nothing of them.
        """
        try:
            self._finish_joining()
        finally:
            self._is_joining = False
            self._consumer.close()
        self._raise_failure()

    def _finish_joining(self) -> None:
        self._is_closing = True
        started = time.monotonic()
        while self._is_joining:
            patience = _JOIN_SECONDS if self._consumer.memberid() else _MEMBER_ID_SECONDS
            if time.monotonic() - started >= patience:
                return
            self._consumer.consume(1, _JOIN_POLL_SECONDS)

    def _least_log_end(self, partition: int, answered: int) -> int:
        """Return an offset that the log's end has certainly reached, from what this source has read.

        Apache Kafka's answer is exact. The embedded broker's may be a batch too low. So an answer that does
        not exceed the position is believed only if that position was reported as the end of the partition.
        """
        position = self._positions.get(partition, 0)
        if answered > position or self._ends.get(partition) == position or not position:
            return position
        fetched = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return position if fetched is None else max(position, fetched[1])

    def _fetch(self, max_records: int, timeout_seconds: float) -> None:
        # consume(n, timeout) waits for its whole timeout unless n records come. So wait for the first
        # record alone, and then take those that are there: a batch, without a delay.
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
            # The offset of this event is that of the next fetch, so it lies behind markers and gaps.
            return EndOfPartition(message.partition(), message.offset(), epoch)
        return self._record_from(message, epoch)

    def _record_from(self, message: Any, assignment_epoch: int) -> Record:
        return Record(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            key=message.key(),
            value=message.value(),
            headers=self._headers.read(message),
            timestamp_ms=message.timestamp()[1],
            assignment_epoch=assignment_epoch,
        )

    def _on_message_error(self, error: KafkaError, message: Any) -> None:
        """Keep an error that `poll` must raise; librdkafka retries after a transient one."""
        if not self._joins_group and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return  # librdkafka looks for the coordinator of the group also where nobody joins it
        topic = message.topic() or self._topic
        place = {"topic": topic, "partition": message.partition(), "offset": message.offset()}
        if (unreadable := error_of_record(error, **place)) is not None:
            if unreadable.partition in self._epochs:
                self._fail(unreadable)
            return
        mapped = error_from_kafka(error, topic=topic, partition=message.partition())
        if isinstance(mapped, TransientLogError):
            if self._repeats.passes("message error") is not None:
                self._log.warning("event log does not answer", error=str(mapped))
            return
        if isinstance(mapped, OffsetOutOfRange):
            self._forget_read(mapped.partition)  # a former log, since deleted, may have had that position
        self._fail(mapped)

    def _forget_read(self, partition: int) -> None:
        self._positions.pop(partition, None)
        self._ends.pop(partition, None)

    def _on_client_error(self, error: KafkaError) -> None:
        self._errors.report(error)
        if error.fatal() or error.code() == KafkaError._AUTHENTICATION:
            self._fail(self._errors.refusal or FatalLogError(error.str()))
        else:  # librdkafka's own log says the same, and the next request that fails
            self._log.debug("event log client reports", error=error.name(), detail=error.str())

    @contextmanager
    def _explained_errors(self, partition: int = -1) -> Iterator[None]:
        """Raise a Kafka error as ours, and a request without an answer with its connection's reason."""
        try:
            with mapped_kafka_errors(topic=self._topic, partition=partition):
                yield
        except TransientLogError as error:
            raise self._errors.explained(error) from error
        self._errors.served()

    def _on_committed(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        failed = [p.error.name() for p in partitions if p.error is not None]
        if error is not None or failed:
            reason = failed[0] if error is None else error.name()
            self._log.warning("offset commit failed", error=reason, partitions=_numbers(partitions))

    def _assign(self, partitions: Collection[int], listener: AssignmentListener) -> None:
        positions: list[TopicPartition] = []
        self._is_joining = False
        try:
            if partitions and not self._is_closing:  # many cooperative rebalances assign nothing new
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
        # librdkafka would keep a revoked partition paused when it is assigned again
        self.resume(self._paused.intersection(read))
        self._answer_rebalance(self._consumer.incremental_unassign, self._topic_partitions(read))
        self._is_joining = not self._is_closing  # a member that has given partitions away joins again

    def _answer_rebalance(
        self, answer: Callable[[list[TopicPartition]], None], partitions: list[TopicPartition]
    ) -> None:
        # Answer even for no partition: otherwise confluent_kafka answers by itself.
        try:
            answer(partitions)
        except KafkaException as error:
            self._fail(error_from_kafka(error.args[0], topic=self._topic))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None or isinstance(self._failure, RecordUnreadable):  # it comes again
            self._failure = error
        else:
            self._log.error("dropped a second failure before the first was raised", error=repr(error))

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _topic_partitions(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in partitions]


def _numbers(partitions: Sequence[TopicPartition]) -> list[int]:
    return [partition.partition for partition in partitions]
