"""A record that is set aside: what its dead letter says, and how the dead letter is delivered."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from consumer.backoff import Backoff
from event_log.errors import EventLogError, FatalLogError, RecordRefused, TransientLogError
from event_log.publisher import NonBlockingPublisher
from event_log.records import Delivery, Headers, Record
from schemas.dead_letters import (
    Failure,
    RecordPosition,
    append_explanation,
    append_value_omitted,
    summarise,
)

_ABOUT_UPLOADS = frozenset(
    {"empty_content", "metadata_too_large", "content_id_too_long", "reference_too_large", "etag_mismatch"}
)


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

    @property
    def is_about_upload(self) -> bool:
        """Whether the event was understood, and what its user has uploaded cannot be indexed.

        Any other reason may be one for all records: wrong bytes, schema, keys or references.
        """
        return self.stage == "prepare" or self.reason in _ABOUT_UPLOADS


def headers_from_set_aside(record: Record, set_aside: SetAside, *, connector: str, worker_id: str) -> Headers:
    """The record's own headers, then what the consumer says about it."""
    failure = _failure(set_aside, connector=connector, worker_id=worker_id)
    return append_explanation(record.headers, origin=_origin(record), failure=failure)


def _failure(set_aside: SetAside, *, connector: str, worker_id: str) -> Failure:
    return Failure(
        reason=set_aside.reason,
        detail=set_aside.detail,
        stage=set_aside.stage,
        exception_class=set_aside.exception_class,
        connector=connector,
        worker_id=worker_id,
    )


def _origin(record: Record) -> RecordPosition:
    return RecordPosition(record.topic, record.partition, record.offset)


class DeadLetter(Protocol):
    """A dead letter that may be offered to the broker several times. Offering does not wait.

    Each form takes less room than the one before: whole, without the record's value, and as a summary
    of bounded size. `str` says whose letter it is and where it goes.
    """

    def offer(self) -> Future[Delivery]: ...

    def offer_without_value(self) -> Future[Delivery]: ...

    def offer_summary(self) -> Future[Delivery]: ...


@dataclass(frozen=True, slots=True)
class RecordLetter:
    """The dead letter of a record: its key, value and headers, and why it was set aside."""

    publisher: NonBlockingPublisher
    topic: str
    record: Record
    failure: Failure

    def __str__(self) -> str:
        return f"the dead letter of {_origin(self.record)} ({self.failure.reason}) to {self.topic}"

    def offer(self) -> Future[Delivery]:
        return self._offer(self.record.key, self.record.value, self._explained())

    def offer_without_value(self) -> Future[Delivery]:
        return self._offer(self.record.key, None, append_value_omitted(self._explained()))

    def offer_summary(self) -> Future[Delivery]:
        record = self.record
        summary = summarise(
            record.key, record.value, record.headers, origin=_origin(record), failure=self.failure
        )
        return self._offer(summary.key, None, summary.headers)

    def _explained(self) -> Headers:
        """The record's own headers, then what the consumer says about it."""
        return append_explanation(self.record.headers, origin=_origin(self.record), failure=self.failure)

    def _offer(self, key: bytes | None, value: bytes | None, headers: Headers) -> Future[Delivery]:
        return self.publisher.offer(self.topic, key=key, value=value, headers=headers)


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
        failure = _failure(set_aside, connector=self._connector, worker_id=self._worker_id)
        return DeadLetterDelivery(RecordLetter(self._publisher, self._topic, record, failure))


class DeadLetterDelivery:
    """One dead letter on its way. It belongs to the thread that asks `is_delivered`.

    A transient failure is tried again. A letter that the broker, the topic or the client refuses is
    sent in its next, smaller form: its headers say where in the log the rest is.
    """

    def __init__(
        self,
        letter: DeadLetter,
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        self._letter = letter
        self._form: Callable[[], Future[Delivery]] = letter.offer
        self._smaller_forms = [letter.offer_without_value, letter.offer_summary]
        self._backoff = backoff
        self._failures = 0
        self._retry_at: float | None = None
        self._pending = self._begin()

    def is_delivered(self, now: float) -> bool:
        """Whether the broker has acknowledged it; raises `FatalLogError` if no form can be published."""
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
            return self._form()
        except EventLogError as error:
            failed: Future[Delivery] = Future()
            failed.set_exception(error)
            return failed

    def _react(self, error: BaseException, now: float) -> None:
        if isinstance(error, RecordRefused) and self._smaller_forms:
            self._form = self._smaller_forms.pop(0)
            self._pending = self._begin()
        elif isinstance(error, TransientLogError):
            self._failures += 1
            self._retry_at = now + self._backoff.seconds(self._failures)
        elif isinstance(error, EventLogError):
            raise FatalLogError(
                f"{self._letter} cannot be published: {error}; check that this topic exists, that the "
                "consumer may write to it, and that its max.message.bytes is at least 2000"
            ) from error
        else:
            raise error

    def _retry_when_due(self, now: float) -> bool:
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._pending = self._begin()
        return False
