"""Records that an open transaction holds back are not there yet: they are lag, and are told of."""

from __future__ import annotations

from structlog.testing import capture_logs

from consumer.intake.held_back import HeldBackRecords
from event_log.records import LogRange
from tests.consumer.running import TOPIC, World, eventually, upload


def said(*observed: tuple[float, LogRange]) -> list[tuple[int, int, int]]:
    held_back = HeldBackRecords("uploads-0")
    with capture_logs() as lines:
        for now, log in observed:
            held_back.observe(log, now=now)
    return [(line["from_offset"], line["num_records"], line["open_seconds"]) for line in lines]


def test_a_short_transaction_is_not_told_of() -> None:
    assert said((0, LogRange(0, 9, 5)), (29, LogRange(0, 12, 5)), (31, LogRange(0, 13))) == []


def test_transactions_that_follow_each_other_are_not_one_long_one() -> None:
    assert said(*((now, LogRange(0, now + 3, now)) for now in range(100))) == []


def test_a_long_transaction_is_told_of_with_its_numbers_once_a_minute() -> None:
    observed = [(now, LogRange(0, 10 + now, 5)) for now in range(0, 121, 10)]
    assert said(*observed) == [(5, 35, 30), (5, 95, 90)]


def value_of(world: World, name: str) -> float | None:
    return world.metrics.registry.get_sample_value(name, {"shard": f"{TOPIC}-0"})


def test_what_an_open_transaction_holds_back_is_lag_and_stops_the_watermark(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("before")))
        eventually(lambda: world.watermark_ms() is not None)
        world.log.hold_back(TOPIC, 0)
        world.publish(upload("held back"))
        end = world.publish(upload("held back too"))
        held_at_ms = world.log.partition(TOPIC, 0).records[1].timestamp_ms
        eventually(lambda: value_of(world, "cliptide_consumer_lag_records") == 2)
        eventually(lambda: (world.lag_seconds() or 0) > 0.3)  # several probes and watermark renewals long
        assert value_of(world, "cliptide_consumer_held_back_records") == 2
        assert world.searcher().find("held back") is None
        watermark_ms = world.watermark_ms()
        assert watermark_ms is not None
        assert watermark_ms < held_at_ms
        world.log.let_go(TOPIC, 0)
        world.wait_committed(end)
        eventually(lambda: value_of(world, "cliptide_consumer_held_back_records") == 0)
        eventually(lambda: value_of(world, "cliptide_consumer_lag_records") == 0)
        eventually(lambda: (world.watermark_ms() or 0) > held_at_ms)
    assert world.searcher().find("held back too") is not None
