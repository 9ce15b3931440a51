import threading
from concurrent.futures import Future

import pytest

from cliptide.demo.uploads.freshness import FreshnessLog, IndexWatch, TimedPublisher, percentile
from cliptide.searching.query_client import IndexState, QueryRefused, QueryServiceAway
from event_log.errors import RecordTooLarge
from event_log.memory.clients import MemoryLog, MemoryPublisher
from event_log.records import Delivery, Headers


def test_an_upload_is_searchable_at_the_first_look_that_covers_it() -> None:
    log = FreshnessLog()
    log.acknowledged(Delivery("up", 0, 4, 5), at_seconds=10.0)
    log.covered({"up-0": 4}, at_seconds=10.5)
    assert log.seconds == []
    log.covered({"up-0": 5}, at_seconds=10.75)
    log.covered({"up-0": 6}, at_seconds=12.0)
    assert log.seconds == [0.75]
    assert log.num_waiting == 0


def test_shards_are_followed_apart() -> None:
    log = FreshnessLog()
    log.acknowledged(Delivery("up", 0, 0, 1), at_seconds=1.0)
    log.acknowledged(Delivery("up", 1, 0, 1), at_seconds=2.0)
    log.covered({"up-1": 1}, at_seconds=3.0)
    assert log.seconds == [1.0]
    assert log.num_waiting == 1


def test_one_look_may_cover_many() -> None:
    log = FreshnessLog()
    for offset in range(3):
        log.acknowledged(Delivery("up", 0, offset, offset + 1), at_seconds=float(offset))
    log.covered({"up-0": 3}, at_seconds=5.0)
    assert sorted(log.seconds) == [3.0, 4.0, 5.0]


PERCENTILES = {
    "median_of_odd": ([3.0, 1.0, 2.0], 0.5, 2.0),
    "median_of_even": ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
    "p99_of_few": ([1.0, 2.0], 0.99, 2.0),
    "p99_of_200": ([float(n) for n in range(1, 201)], 0.99, 198.0),
    "of_one": ([7.0], 0.5, 7.0),
    "of_none": ([], 0.5, 0.0),
}


@pytest.mark.parametrize(("values", "share", "expected"), PERCENTILES.values(), ids=PERCENTILES.keys())
def test_percentiles_are_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_a_timed_publisher_notes_the_moment_of_acknowledgement() -> None:
    memory, log = MemoryLog(), FreshnessLog()
    memory.create_topic("up")
    publisher = TimedPublisher(MemoryPublisher(memory), log, clock=lambda: 10.0)
    publisher.publish("up", key=b"a", value=b"v").result(1)
    assert publisher.flush(1.0) == 0
    publisher.close()
    log.covered({"up-0": 1}, at_seconds=10.5)
    assert log.seconds == [0.5]


class RefusingPublisher:
    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        future: Future[Delivery] = Future()
        future.set_exception(RecordTooLarge("11000000 bytes"))
        return future

    def flush(self, timeout_seconds: float) -> int:
        return 0

    def close(self) -> None: ...


def test_what_was_not_acknowledged_is_not_waited_for() -> None:
    log = FreshnessLog()
    future = TimedPublisher(RefusingPublisher(), log).publish("up", key=b"a", value=b"v")
    assert isinstance(future.exception(), RecordTooLarge)
    assert log.num_waiting == 0


class ScriptedView:
    def __init__(self) -> None:
        self.looks = 0
        self.enough = threading.Event()

    def index(self) -> IndexState:
        self.looks += 1
        if self.looks == 1:
            raise QueryServiceAway("starting")
        if self.looks == 3:
            self.enough.set()
        return IndexState({"up-0": self.looks}, self.looks)

    def content(self, content_id: str) -> None:
        raise AssertionError("a watch looks at the index alone")


class RefusingView(ScriptedView):
    def index(self) -> IndexState:
        self.enough.set()
        raise QueryRefused(500, "internal", "a fault")


def test_a_watch_that_cannot_go_on_says_so() -> None:
    view = RefusingView()
    with IndexWatch(view, FreshnessLog()) as watch:
        assert view.enough.wait(60.0)
    with pytest.raises(QueryRefused, match="500 internal"):
        _ = watch.state


def test_a_watch_keeps_looking_and_survives_a_service_that_is_away() -> None:
    view, log = ScriptedView(), FreshnessLog()
    log.acknowledged(Delivery("up", 0, 0, 1), at_seconds=1.0)
    with IndexWatch(view, log, clock=lambda: 3.0) as watch:
        assert view.enough.wait(60.0)
    assert watch.state.next_offsets["up-0"] == view.looks
    assert log.seconds == [2.0]
