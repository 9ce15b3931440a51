"""Publishes events: at most a window of them is unacknowledged, and outcomes come in the events' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from cliptide.publishing.event_tracing import EventTracing
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.upload_event import BadUpload
from cliptide.publishing.upload_row import BadRow, UploadRow
from cliptide.terminal.waiting import tell, waiting_told
from event_log.errors import RecordRefused, TransientLogError
from event_log.publisher import Publisher
from event_log.records import Delivery, Headers
from schemas.codec import EncodedEvent, encode_event
from schemas.errors import BadEvent
from schemas.events import Event


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has acknowledged the event."""

    label: str
    content_id: str
    size_bytes: int
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Checked:
    """The event is valid. A dry run ends here."""

    label: str
    content_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The event of this row was not published; `reason` says why."""

    label: str
    reason: str


Outcome: TypeAlias = Published | Checked | Failed


def failures_of(outcomes: Iterable[Outcome]) -> list[Failed]:
    return [outcome for outcome in outcomes if isinstance(outcome, Failed)]


def deliveries_of(outcomes: Iterable[Outcome]) -> list[Delivery]:
    return [outcome.delivery for outcome in outcomes if isinstance(outcome, Published)]


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """A valid, encoded event. `label` names the row it came from to a person."""

    label: str
    content_id: str
    encoded: EncodedEvent

    @property
    def size_bytes(self) -> int:
        return len(self.encoded.key) + len(self.encoded.value)


@dataclass(frozen=True, slots=True)
class Window:
    """How many events, and how many of their bytes, may wait for the broker's acknowledgement."""

    num_events: int = 2_000
    num_bytes: int = 64 * 1024 * 1024


DEFAULT_WINDOW = Window()


def encode_rows(
    rows: Iterable[UploadRow | BadRow], build: Callable[[UploadRow], Event]
) -> Iterator[LabelledEvent | Failed]:
    """Turn rows into encoded events. A row that cannot become an event becomes a `Failed`."""
    for row in rows:
        if isinstance(row, BadRow):
            yield Failed(row.label, row.reason)
            continue
        try:
            yield label_event(row.label, build(row))
        except (BadUpload, BadEvent) as error:
            yield Failed(row.label, str(error))


def label_event(label: str, event: Event) -> LabelledEvent:
    """Encode an event, or raise `BadEvent` if it breaks the contract."""
    return LabelledEvent(label, event.content_id, encode_event(event))


def check_events(events: Iterable[LabelledEvent | Failed]) -> Iterator[Checked | Failed]:
    """Report on each event without publishing it, for a dry run."""
    for event in events:
        if isinstance(event, Failed):
            yield event
        else:
            yield Checked(event.label, event.content_id, event.size_bytes)


class EventPublisher:
    """Publishes events to one topic and reports on each. At most a window of them is unacknowledged."""

    def __init__(
        self,
        publisher: Publisher,
        topic: str,
        *,
        pacer: Pacer,
        window: Window = DEFAULT_WINDOW,
        say: Callable[[str], None] = tell,
        tracing: EventTracing | None = None,
    ) -> None:
        self._publisher = publisher
        self._tracing = tracing
        self._topic = topic
        self._pacer = pacer
        self._window = window
        self._say = say
        self._pending: deque[tuple[LabelledEvent, Future[Delivery]]] = deque()
        self._pending_bytes = 0

    def publish(self, events: Iterable[LabelledEvent | Failed]) -> Iterator[Published | Failed]:
        """Yield one outcome for each event, as acknowledgements come in.

        An error of one record makes a `Failed`. A `FatalLogError` is raised, because the next record
        would fail too.
        """
        for event in events:
            if isinstance(event, Failed):
                yield event
                continue
            self._pacer.wait()
            self._queue(event)
            yield from self._settle(self._is_settled_or_over)
        yield from self._settle(lambda: True)

    def _queue(self, event: LabelledEvent) -> None:
        self._pending.append((event, self._publish_one(event.encoded)))
        self._pending_bytes += event.size_bytes

    def _publish_one(self, encoded: EncodedEvent) -> Future[Delivery]:
        if self._tracing is None:
            return self._send(encoded, encoded.headers)
        sending = self._tracing.begin(self._topic)
        delivery = self._send(encoded, (*encoded.headers, *sending.headers))
        delivery.add_done_callback(sending.end)
        return delivery

    def _send(self, encoded: EncodedEvent, headers: Headers) -> Future[Delivery]:
        try:
            return self._publisher.publish(self._topic, key=encoded.key, value=encoded.value, headers=headers)
        except (RecordRefused, TransientLogError) as error:
            refused: Future[Delivery] = Future()
            refused.set_exception(error)
            return refused

    def _settle(self, should_settle: Callable[[], bool]) -> Iterator[Published | Failed]:
        while self._pending and should_settle():
            event, future = self._pending.popleft()
            self._pending_bytes -= event.size_bytes
            with self._waiting_told(future):
                wait([future])
            yield _outcome(event, future)

    def _waiting_told(self, future: Future[Delivery]) -> AbstractContextManager[None]:
        """Say that an acknowledgement is waited for, unless it is there."""
        return nullcontext() if future.done() else waiting_told("Kafka's acknowledgement", say=self._say)

    def _is_settled_or_over(self) -> bool:
        is_over = len(self._pending) > self._window.num_events or self._pending_bytes > self._window.num_bytes
        return is_over or self._pending[0][1].done()


def _outcome(event: LabelledEvent, future: Future[Delivery]) -> Published | Failed:
    try:
        delivery = future.result()
    except (RecordRefused, TransientLogError) as error:
        return Failed(event.label, str(error))
    return Published(event.label, event.content_id, event.size_bytes, delivery)
