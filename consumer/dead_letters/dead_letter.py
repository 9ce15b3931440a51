"""A record that is set aside: what its dead letter says, and how the dead letter is delivered."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from consumer.backoff import Backoff
from event_log.errors import EventLogError, RecordTooLarge, TransientLogError
from event_log.publisher import NonBlockingPublisher
from event_log.records import Delivery, Headers, Record
from schemas.dead_letters import Failure, RecordPosition, append_explanation, append_value_omitted


@dataclass(frozen=True, slots=True)
class SetAside:
    """Why a record becomes a dead letter.

    `reason` is a stable code. `detail` is a sentence that quotes nothing of the content. `stage`
    says what was being done: decode, reference, prepare or quarantine.
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


class DeadLetter(Protocol):
    """A dead letter that may be offered to the broker several times. Offering does not wait."""

    def offer(self) -> Future[Delivery]: ...

    def offer_without_value(self) -> Future[Delivery]: ...


@dataclass(frozen=True, slots=True)
class RecordLetter:
    """The dead letter of a record: its key and value, and `headers`, which begin with its own."""

    publisher: NonBlockingPublisher
    topic: str
    record: Record
    headers: Headers

    def offer(self) -> Future[Delivery]:
        return self._offer(self.record.value, self.headers)

    def offer_without_value(self) -> Future[Delivery]:
        return self._offer(None, append_value_omitted(self.headers))

    def _offer(self, value: bytes | None, headers: Headers) -> Future[Delivery]:
        return self.publisher.offer(self.topic, key=self.record.key, value=value, headers=headers)


class DeadLetters:
    """Publishes dead letters with the key, value and headers of their records.

    Thread-safe. `send` does not wait for the broker.
    """

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
        return DeadLetterDelivery(RecordLetter(self._publisher, self._topic, record, headers))


class DeadLetterDelivery:
    """One dead letter on its way. It belongs to the thread that asks `is_delivered`.

    A transient failure is tried again. If the error headers make a record too large for the
    broker, it is sent without its value: its headers say where in the log the value is.
    """

    def __init__(
        self,
        letter: DeadLetter,
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        self._letter = letter
        self._omits_value = False
        self._backoff = backoff
        self._failures = 0
        self._retry_at: float | None = None
        self._pending = self._begin()

    def is_delivered(self, now: float) -> bool:
        """Whether the broker has acknowledged it; raises an error that is not worth retrying."""
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
            return self._letter.offer_without_value() if self._omits_value else self._letter.offer()
        except EventLogError as error:
            failed: Future[Delivery] = Future()
            failed.set_exception(error)
            return failed

    def _react(self, error: BaseException, now: float) -> None:
        if isinstance(error, RecordTooLarge) and not self._omits_value:
            self._omits_value = True
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
