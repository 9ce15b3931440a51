"""A record set aside: what is said about it, and its delivery."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from consumer.backoff import Backoff
from event_log.errors import EventLogError, RecordTooLarge, TransientLogError
from event_log.publisher import NonBlockingPublisher
from event_log.records import Delivery, Headers, Record
from schemas.dead_letters import Failure, RecordPosition, append_explanation, append_value_omitted


@dataclass(frozen=True, slots=True)
class SetAside:
    """Why a record becomes a dead letter.

    `reason` is a stable code, `detail` a sentence without content, `stage` what was
    being done: decode, reference, prepare or quarantine.
    """

    reason: str
    detail: str
    stage: str
    exception_class: str


def headers_from_set_aside(record: Record, set_aside: SetAside, *, connector: str, worker_id: str) -> Headers:
    """The record's own headers, then what the consumer says about it."""
    failure = Failure(
        reason=set_aside.reason,
        detail=set_aside.detail,
        stage=set_aside.stage,
        exception_class=set_aside.exception_class,
        connector=connector,
        worker_id=worker_id,
    )
    origin = RecordPosition(record.topic, record.partition, record.offset)
    return append_explanation(record.headers, origin=origin, failure=failure)


class DeadLetters:
    """Publishes dead letters with original key, value and headers; thread-safe, and waits for nobody."""

    def __init__(
        self, publisher: NonBlockingPublisher, topic: str, *, connector: str, worker_id: str
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._connector = connector
        self._worker_id = worker_id

    def send(self, record: Record, set_aside: SetAside) -> DeadLetterDelivery:
        headers = headers_from_set_aside(
            record, set_aside, connector=self._connector, worker_id=self._worker_id
        )
        return DeadLetterDelivery(
            whole=lambda: self._offer(record, record.value, headers),
            without_value=lambda: self._offer(record, None, append_value_omitted(headers)),
        )

    def _offer(self, record: Record, value: bytes | None, headers: Headers) -> Future[Delivery]:
        return self._publisher.offer(self._topic, key=record.key, value=value, headers=headers)


class DeadLetterDelivery:
    """One dead letter on its way. Owned by the thread that asks `is_delivered`.

    A transient failure is tried again; a record that its error headers make too large
    for the broker goes without its value, which its place in the log still names.
    """

    def __init__(
        self,
        *,
        whole: Callable[[], Future[Delivery]],
        without_value: Callable[[], Future[Delivery]],
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        self._attempt = whole
        self._without_value = without_value
        self._backoff = backoff
        self._failures = 0
        self._retry_at: float | None = None
        self._pending = self._begin()

    def is_delivered(self, now: float) -> bool:
        """Whether the broker acknowledged it; raises what is not worth retrying."""
        if self._retry_at is not None:
            return self._retry_when_due(now)
        if not self._pending.done():
            return False
        error = self._pending.exception()
        if error is None:
            return True
        self._react(error, now)
        return False

    def _begin(self) -> Future[Delivery]:
        try:
            return self._attempt()
        except EventLogError as error:
            failed: Future[Delivery] = Future()
            failed.set_exception(error)
            return failed

    def _react(self, error: BaseException, now: float) -> None:
        if isinstance(error, RecordTooLarge) and self._attempt is not self._without_value:
            self._attempt = self._without_value
            self._pending = self._begin()
        elif isinstance(error, TransientLogError):
            self._failures += 1
            self._retry_at = now + self._backoff.seconds(self._failures)
        else:
            raise error

    def _retry_when_due(self, now: float) -> bool:
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._pending = self._begin()
        return False
