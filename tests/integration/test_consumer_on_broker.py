"""A consumer process on the embedded broker is killed, stopped, and sent records that cannot be indexed."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from event_log.kafka.publisher import KafkaPublisher
from fakes.hash_encoder import draw_picture
from schemas.codec import encode_event
from schemas.events import ImageContent, TextContent
from tests.consumer.running import upload
from tests.event_log.event_logs import Reader
from tests.integration.fleet import PATIENCE_SECONDS, Fleet

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture
def fleet(embedded_fleet: Fleet) -> Fleet:
    return embedded_fleet


def publish(fleet: Fleet, numbers: range, make: Callable[[int], bytes | None] = lambda _: None) -> None:
    """Publish one content for each number; every seventh is a picture. `make` may build bad values."""
    publisher = KafkaPublisher(fleet.kafka)
    futures = []
    for number in numbers:
        content = (
            ImageContent(draw_picture(number)) if number % 7 == 0 else TextContent(f"text number {number}")
        )
        encoded = encode_event(upload(f"c{number}", content))
        value = make(number) or encoded.value
        futures.append(publisher.publish(fleet.topic, key=encoded.key, value=value))
    assert publisher.flush(PATIENCE_SECONDS) == 0
    assert all(future.result(0).next_offset for future in futures)
    publisher.close()


def wait_for(fleet: Fleet, num_contents: int) -> None:
    fleet.wait(lambda: fleet.num_contents() >= num_contents)


def assert_holds(fleet: Fleet, numbers: range) -> None:
    """Assert that each content is in the index exactly once, and no other content is."""
    searcher = fleet.searcher()
    assert searcher is not None
    assert [number for number in numbers if searcher.find(f"c{number}") is None] == []
    assert fleet.num_contents() == len(numbers)


def test_a_killed_consumer_leaves_nothing_out_and_nothing_twice(fleet: Fleet) -> None:
    publish(fleet, range(700))
    first = fleet.start(is_held=True)
    wait_for(fleet, 700)
    fleet.hold.touch()
    publish(fleet, range(700, 1500))
    fleet.wait(lambda: fleet.is_waiting_to_encode)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert fleet.num_contents() < 1500, "the consumer was to be killed in the middle"
    publish(fleet, range(1500, 1600))
    second = fleet.start()
    wait_for(fleet, 1600)
    assert second.stop() == 0
    assert_holds(fleet, range(1600))


def test_sigterm_commits_what_is_encoded_leaves_the_group_and_exits_0(fleet: Fleet) -> None:
    publish(fleet, range(200))
    process = fleet.start()
    wait_for(fleet, 200)
    assert process.stop() == 0
    assert fleet.next_offsets() == fleet.group_offsets()


def test_bad_records_reach_the_dead_letter_topic_and_the_rest_is_indexed(fleet: Fleet) -> None:
    publish(fleet, range(100), lambda number: b"garbage" if number % 10 == 3 else None)
    process = fleet.start()
    wait_for(fleet, 90)
    assert process.stop() == 0
    assert fleet.num_contents() == 90
    with fleet.asking() as source:
        reader = Reader(source, fleet.dead_letter_topic)
        reader.poll_until(lambda: len(reader.records) >= 10)
    assert {record.key for record in reader.records} == {f"c{n}".encode() for n in range(3, 100, 10)}
