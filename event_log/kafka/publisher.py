"""A publisher over confluent_kafka's producer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from event_log.errors import EventLogError, FatalLogError, RecordTooLarge, TransientLogError
from event_log.kafka.client_errors import ClientErrors
from event_log.kafka.errors import error_from_kafka
from event_log.kafka.settings import KafkaSettings, build_client, build_producer_config
from event_log.records import Delivery, Headers, next_offset_after

_POLL_SECONDS = 0.1


class KafkaPublisher:
    """Implements `NonBlockingPublisher`: idempotent, acknowledged by all in-sync replicas.

    The key chooses the partition as in Java's client (murmur2). `publish` waits while the queue is
    full: it holds 64 MiB, or `queue.buffering.max.kbytes`. The publisher's own thread resolves the
    futures, so their callbacks must be quick.

    An idempotent producer may end with a fatal error: it has no right to be idempotent, or lost count with
    the broker. Then the futures of all queued records fail with a `FatalLogError`, and a new producer takes
    its place, because a service may go on when the cause is gone.
    """

    def __init__(self, settings: KafkaSettings, *, close_timeout_seconds: float = 10.0) -> None:
        self._close_timeout = close_timeout_seconds
        self._errors = ClientErrors()
        config = build_producer_config(settings) | {"error_cb": self._errors.report}
        self._max_queued_bytes = int(config["queue.buffering.max.kbytes"]) * 1024
        self._config = config
        self._producer: Producer = build_client(Producer, config)
        self._replacing = threading.Lock()
        self._undelivered: set[Future[Delivery]] = set()
        self._undelivered_lock = threading.Lock()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._serve_deliveries, name="kafka-publisher", daemon=True)
        self._poller.start()

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        """Queue one record, and wait while the queue is full.

        The future's result is the delivery, its exception an `EventLogError`. A `TransientLogError`
        comes after librdkafka's `message.timeout.ms`; the record may be in the log all the same.
        """
        while True:
            try:
                return self._queue(topic, key, value, headers)
            except BufferError:
                self._poll(_POLL_SECONDS)

    def offer(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        """Queue one record without waiting. If the queue is full, the future fails: `TransientLogError`."""
        try:
            return self._queue(topic, key, value, headers)
        except BufferError as error:
            future: Future[Delivery] = Future()
            future.set_exception(TransientLogError(str(error)))
            return future

    def flush(self, timeout_seconds: float) -> int:
        """Wait until every queued record is acknowledged; return how many are not after the timeout.

        This counts futures, because librdkafka's own count includes its queued log lines and errors.
        """
        deadline = time.monotonic() + timeout_seconds
        self._flush(timeout_seconds)
        with self._undelivered_lock:
            queued = set(self._undelivered)
        return len(wait(queued, timeout=max(0.0, deadline - time.monotonic())).not_done)

    def close(self) -> None:
        """Deliver the queued records within the close timeout; the futures of the rest fail."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._poller.join()
        if self._flush(self._close_timeout):
            self._producer.purge()
            self._flush(1.0)

    def _forget(self, future: Future[Delivery]) -> None:
        with self._undelivered_lock:
            self._undelivered.discard(future)

    def _queue(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Future[Delivery]:
        """Queue one record, or raise `BufferError` while the queue is full."""
        future: Future[Delivery] = Future()
        if value is not None and len(value) > self._max_queued_bytes:  # it would wait for room for ever
            limit = f"queue.buffering.max.kbytes allows {self._max_queued_bytes}"
            future.set_exception(RecordTooLarge(f"a value of {len(value)} bytes, {limit}"))
            return future
        producer = self._producer  # read first: when it fails, this future fails with it
        future.set_running_or_notify_cancel()  # nobody can cancel a record that is queued
        if self._closing.is_set():
            future.set_exception(FatalLogError("the publisher is closed"))
            return future
        with self._undelivered_lock:
            self._undelivered.add(future)
        future.add_done_callback(self._forget)

        def on_delivery(error: KafkaError | None, message: Any) -> None:
            self._resolve(future, topic, error, message)

        try:
            producer.produce(topic, value=value, key=key, headers=list(headers), on_delivery=on_delivery)
        except BufferError:
            self._forget(future)
            raise
        except KafkaException as error:
            self._give_up_if_fatal(producer, error.args[0])
            _fail(future, error_from_kafka(error.args[0], topic=topic))
        return future

    def _resolve(self, future: Future[Delivery], topic: str, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            mapped = error_from_kafka(error, topic=topic)
            if isinstance(mapped, TransientLogError):
                mapped = self._errors.explained(mapped)
            _fail(future, mapped)
            return
        self._errors.served()
        offset = message.offset()
        with suppress(InvalidStateError):  # a fatal error was told meanwhile
            future.set_result(Delivery(topic, message.partition(), offset, next_offset_after(offset)))

    def _serve_deliveries(self) -> None:
        while not self._closing.is_set():
            self._poll(_POLL_SECONDS)

    def _poll(self, seconds: float) -> None:
        producer = self._producer
        try:
            producer.poll(seconds)
        except (KafkaException, SystemError) as error:
            self._give_up_if_fatal(producer, _kafka_error_of(error))

    def _flush(self, seconds: float) -> int:
        """Return how many records, log lines and errors the producer still holds.

        It waits in pieces shorter than the client's own (0.2 s). Between two of its own, the client would go
        on after a fatal error, and the next delivery callback could lose that error.
        """
        producer = self._producer
        deadline = time.monotonic() + seconds
        try:
            while queued := int(producer.flush(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))):
                if time.monotonic() >= deadline:
                    return queued
        except (KafkaException, SystemError) as error:
            self._give_up_if_fatal(producer, _kafka_error_of(error))
        return 0

    def _give_up_if_fatal(self, producer: Producer, error: KafkaError) -> None:
        """Replace a producer that can deliver nothing more, and fail what it has queued."""
        if not error.fatal() and error.code() != KafkaError._FATAL:
            return
        with self._replacing:
            if producer is not self._producer:
                return  # another thread has replaced it
            with self._undelivered_lock:
                queued = set(self._undelivered)
            try:
                self._producer = build_client(Producer, self._config)
            finally:  # not before: whoever learns of the failure may publish the next record at once
                for future in queued:
                    _fail(future, FatalLogError(f"{error.name()}: {error.str()}"))
        producer.purge()


def _kafka_error_of(error: KafkaException | SystemError) -> KafkaError:
    """Return the error behind an exception; raise a `SystemError` of another origin again.

    The client raises a fatal error by setting it, and may still call a delivery callback. In that, Python
    raises a `SystemError` because of it.
    """
    cause = error.__cause__ or error.__context__ if isinstance(error, SystemError) else error
    if not isinstance(cause, KafkaException):
        raise error
    found: KafkaError = cause.args[0]
    return found


def _fail(future: Future[Delivery], error: EventLogError) -> None:
    with suppress(InvalidStateError):  # it has failed with the producer
        future.set_exception(error)
