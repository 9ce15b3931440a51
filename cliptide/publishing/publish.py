"""Events to the log: bounded in flight, every outcome reported in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from cliptide.publishing.pacer import Pacer
from cliptide.publishing.upload_event import BadUpload
from cliptide.publishing.upload_row import BadRow, UploadRow
from event_log.errors import RecordTooLarge, TransientLogError
from event_log.publisher import Publisher
from event_log.records import Delivery
from schemas.codec import EncodedEvent, encode_event
from schemas.errors import BadEvent
from schemas.events import Event


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has acknowledged the event."""

    place: str
    content_id: str
    size_bytes: int
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Checked:
    """The event is valid; a dry run goes no further."""

    place: str
    content_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no event in the log for this row, and why."""

    place: str
    reason: str


Outcome: TypeAlias = Published | Checked | Failed


@dataclass(frozen=True, slots=True)
class PlacedEvent:
    """A valid, encoded event and the place of the row it came from."""

    place: str
    content_id: str
    encoded: EncodedEvent

    @property
    def size_bytes(self) -> int:
        return len(self.encoded.key) + len(self.encoded.value)


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be on its way to the broker without acknowledgement."""

    num_events: int = 2_000
    num_bytes: int = 64 * 1024 * 1024


DEFAULT_WINDOW = Window()


def encode_rows(
    rows: Iterable[UploadRow | BadRow], build: Callable[[UploadRow], Event]
) -> Iterator[PlacedEvent | Failed]:
    """Turn rows into encoded events; a row that cannot be one is a `Failed` in its place."""
    for row in rows:
        if isinstance(row, BadRow):
            yield Failed(row.place, row.reason)
            continue
        try:
            yield place_event(row.place, build(row))
        except (BadUpload, BadEvent) as error:
            yield Failed(row.place, str(error))


def place_event(place: str, event: Event) -> PlacedEvent:
    """Encode an event by the contract's own code; `BadEvent` when it breaks it."""
    return PlacedEvent(place, event.content_id, encode_event(event))


def check_events(events: Iterable[PlacedEvent | Failed]) -> Iterator[Checked | Failed]:
    """What a dry run does instead of publishing."""
    for event in events:
        if isinstance(event, Failed):
            yield event
        else:
            yield Checked(event.place, event.content_id, event.size_bytes)


class EventPublisher:
    """Publishes events to one topic and reports on each, with at most a window of them unacknowledged."""

    def __init__(
        self, publisher: Publisher, topic: str, *, pacer: Pacer, window: Window = DEFAULT_WINDOW
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._pacer = pacer
        self._window = window
        self._pending: deque[tuple[PlacedEvent, Future[Delivery]]] = deque()
        self._pending_bytes = 0

    def publish(self, events: Iterable[PlacedEvent | Failed]) -> Iterator[Published | Failed]:
        """Yield one outcome for each event, as acknowledgements come in.

        What only this record suffers from is a `Failed`; a `FatalLogError` is raised.
        """
        for event in events:
            if isinstance(event, Failed):
                yield event
                continue
            self._pacer.wait()
            self._queue(event)
            yield from self._settle(self._is_settled_or_over)
        yield from self._settle(lambda: True)

    def _queue(self, event: PlacedEvent) -> None:
        self._pending.append((event, self._publish_one(event.encoded)))
        self._pending_bytes += event.size_bytes

    def _publish_one(self, encoded: EncodedEvent) -> Future[Delivery]:
        try:
            return self._publisher.publish(
                self._topic, key=encoded.key, value=encoded.value, headers=encoded.headers
            )
        except (RecordTooLarge, TransientLogError) as error:
            refused: Future[Delivery] = Future()
            refused.set_exception(error)
            return refused

    def _settle(self, should_settle: Callable[[], bool]) -> Iterator[Published | Failed]:
        while self._pending and should_settle():
            event, future = self._pending.popleft()
            self._pending_bytes -= event.size_bytes
            yield _outcome(event, future)

    def _is_settled_or_over(self) -> bool:
        is_over = len(self._pending) > self._window.num_events or self._pending_bytes > self._window.num_bytes
        return is_over or self._pending[0][1].done()


def _outcome(event: PlacedEvent, future: Future[Delivery]) -> Published | Failed:
    try:
        delivery = future.result()
    except (RecordTooLarge, TransientLogError) as error:
        return Failed(event.place, str(error))
    return Published(event.place, event.content_id, event.size_bytes, delivery)
