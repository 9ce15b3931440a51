"""A publisher over confluent_kafka's producer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from event_log.errors import FatalLogError, RecordTooLarge, TransientLogError
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
    """

    def __init__(self, settings: KafkaSettings, *, close_timeout_seconds: float = 10.0) -> None:
        self._close_timeout = close_timeout_seconds
        self._errors = ClientErrors()
        config = build_producer_config(settings) | {"error_cb": self._errors.report}
        self._max_queued_bytes = int(config["queue.buffering.max.kbytes"]) * 1024
        self._producer: Producer = build_client(Producer, config)
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
                self._producer.poll(_POLL_SECONDS)

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
        self._producer.flush(timeout_seconds)
        with self._undelivered_lock:
            queued = set(self._undelivered)
        return len(wait(queued, timeout=max(0.0, deadline - time.monotonic())).not_done)

    def close(self) -> None:
        """Deliver the queued records within the close timeout; the futures of the rest fail."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._poller.join()
        if self._producer.flush(self._close_timeout):
            self._producer.purge()
            self._producer.flush(1.0)

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
            self._producer.produce(
                topic, value=value, key=key, headers=list(headers), on_delivery=on_delivery
            )
        except BufferError:
            self._forget(future)
            raise
        except KafkaException as error:
            future.set_exception(error_from_kafka(error.args[0], topic=topic))
        return future

    def _resolve(self, future: Future[Delivery], topic: str, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            mapped = error_from_kafka(error, topic=topic)
            if isinstance(mapped, TransientLogError):
                mapped = self._errors.explained(mapped)
            future.set_exception(mapped)
            return
        self._errors.served()
        offset = message.offset()
        future.set_result(Delivery(topic, message.partition(), offset, next_offset_after(offset)))

    def _serve_deliveries(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(_POLL_SECONDS)
