from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import (
    Checked,
    EventPublisher,
    Failed,
    LabelledEvent,
    Published,
    Window,
    check_events,
    encode_rows,
    label_event,
)
from cliptide.publishing.upload_event import EventBuilder, InlineLimit
from cliptide.publishing.upload_row import BadRow, UploadRow, row_from_values
from cliptide.terminal import waiting
from event_log.errors import EventLogError, FatalLogError, RecordTooLarge, TransientLogError
from event_log.records import Delivery, Headers
from schemas.events import DeleteEvent, UploadEvent

SMALL_WINDOW = Window(num_events=3, num_bytes=10_000)
NOW = datetime(2026, 3, 4, tzinfo=timezone.utc)


@dataclass
class HeldPublisher:
    """Acknowledges only what it is told to, so that tests see what waits."""

    refusals: dict[bytes, EventLogError] = field(default_factory=dict)
    futures: list[Future[Delivery]] = field(default_factory=list)
    acknowledge_at: int = 0  # acknowledge everything once so many records are queued
    most_waiting: int = 0

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        assert key is not None
        if isinstance(self.refusals.get(key), RecordTooLarge):
            raise self.refusals[key]
        future: Future[Delivery] = Future()
        self.futures.append(future)
        if key in self.refusals:
            future.set_exception(self.refusals[key])
        waiting = [f for f in self.futures if not f.done()]
        self.most_waiting = max(self.most_waiting, len(waiting))
        if len(waiting) >= self.acknowledge_at:
            for f in waiting:
                f.set_result(Delivery(topic, 0, self.futures.index(f), self.futures.index(f) + 1))
        return future

    def flush(self, timeout_seconds: float) -> int:
        return 0

    def close(self) -> None: ...


def deletes(*content_ids: str) -> list[LabelledEvent | Failed]:
    return [label_event(f"row {i}", DeleteEvent("e", i, "shop", NOW)) for i in content_ids]


def sender(publisher: HeldPublisher, window: Window = SMALL_WINDOW) -> EventPublisher:
    return EventPublisher(publisher, "uploads", pacer=Pacer(None), window=window)


def test_every_event_has_one_outcome_in_its_place() -> None:
    events = [*deletes("a"), Failed("line 2", "bad"), *deletes("b")]
    first, second, third = sender(HeldPublisher()).publish(events)
    assert isinstance(first, Published)
    assert first.content_id == "a"
    assert second == Failed("line 2", "bad")
    assert isinstance(third, Published)
    assert third.delivery == Delivery("uploads", 0, 1, 2)


def test_no_more_than_a_window_of_events_is_unacknowledged() -> None:
    publisher = HeldPublisher(acknowledge_at=4)
    assert len(list(sender(publisher).publish(deletes(*"abcdefgh")))) == 8
    assert publisher.most_waiting == 4  # the window, and the one that went over it


def test_a_window_counts_bytes_too() -> None:
    publisher = HeldPublisher(acknowledge_at=1)
    outcomes = list(sender(publisher, Window(100, 1)).publish(deletes("a", "b")))
    assert all(isinstance(outcome, Published) for outcome in outcomes)
    assert publisher.most_waiting == 1


REFUSALS = {
    "too_large_at_once": RecordTooLarge("11000000 bytes"),
    "timed_out": TransientLogError("message timed out"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_only_one_record_suffers_from_fails_that_record(error: EventLogError) -> None:
    outcomes = list(sender(HeldPublisher(refusals={b"b": error})).publish(deletes("a", "b", "c")))
    assert [type(outcome) for outcome in outcomes] == [Published, Failed, Published]
    assert outcomes[1] == Failed("row b", str(error))


def test_a_fatal_error_ends_the_run() -> None:
    publisher = HeldPublisher(refusals={b"a": FatalLogError("not authorised")})
    with pytest.raises(FatalLogError, match="not authorised"):
        list(sender(publisher).publish(deletes("a", "b")))


def test_a_broker_that_does_not_acknowledge_is_waited_for_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "TOLD_AFTER_SECONDS", 0.0)
    publisher, said = HeldPublisher(acknowledge_at=99), list[str]()

    def say(line: str) -> None:
        said.append(line)
        publisher.futures[0].set_result(Delivery("uploads", 0, 0, 1))

    publishing = EventPublisher(publisher, "uploads", pacer=Pacer(None), say=say)
    assert len(list(publishing.publish(deletes("a")))) == 1
    assert said == ["waiting for Kafka's acknowledgement …"]


def build() -> Callable[[UploadRow], UploadEvent]:
    return EventBuilder("shop", InlineLimit(100), now=lambda: NOW).build


def test_rows_are_held_to_the_contract_of_events() -> None:
    rows = [
        BadRow("line 2", "not JSON"),
        row_from_values("line 3", {"id": "x" * 513, "text": "fine"}, Path()),
        row_from_values("line 4", {"text": "fine", "metadata": {"k" * 300: 1}}, Path()),
        row_from_values("line 5", {"id": "x", "text": "   "}, Path()),
        row_from_values("line 6", {"file": "gone.png"}, Path()),
        row_from_values("line 7", {"id": "y", "text": "fine"}, Path()),
    ]
    *failed, good = check_events(encode_rows(rows, build()))
    assert [outcome.label for outcome in failed] == [f"line {n}" for n in range(2, 7)]
    reasons = [outcome.reason.split(":")[0] for outcome in failed if isinstance(outcome, Failed)]
    assert reasons[:4] == ["not JSON", "content_id_too_long", "metadata_too_large", "empty_content"]
    assert isinstance(good, Checked)
    assert good.content_id == "y"


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_pacer_spaces_evenly() -> None:
    time = FakeTime()
    pacer = Pacer(10, clock=time.clock, sleep=time.sleep)
    moments = []
    for _ in range(3):
        pacer.wait()
        moments.append(round(time.now - 100, 3))
    assert moments == [0.0, 0.1, 0.2]


def test_a_pacer_does_not_burst_after_a_stall() -> None:
    time = FakeTime()
    pacer = Pacer(10, clock=time.clock, sleep=time.sleep)
    pacer.wait()
    time.now += 5.0
    moments = []
    for _ in range(4):
        pacer.wait()
        moments.append(round(time.now - 105, 3))
    assert moments == [0.0, 0.0, 0.1, 0.2]  # one interval of credit, no more


def test_no_rate_never_sleeps() -> None:
    time = FakeTime()
    pacer = Pacer(None, clock=time.clock, sleep=time.sleep)
    for _ in range(3):
        pacer.wait()
    assert time.now == 100.0
