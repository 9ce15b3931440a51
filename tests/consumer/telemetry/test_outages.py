"""What is told of failures that are waited out."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumer.telemetry.metrics import Metrics
from consumer.telemetry.outages import Outages


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def build_outages(clock: Clock) -> Outages:
    return Outages(Metrics(CollectorRegistry()).transient_errors, clock=clock)


def test_an_outage_of_many_failures_is_one_line_at_its_start_one_a_minute_and_one_at_its_end() -> None:
    clock = Clock()
    with capture_logs() as lines:
        outages = build_outages(clock)
        for second in range(150):
            clock.now = float(second)
            outages.failed("log", OSError("away"), part=f"uploads-{second % 4}")
        for partition in range(4):
            outages.ended("log", part=f"uploads-{partition}")
        outages.ended("log", part="uploads-0")
    told = [(line["event"], line["failures"], line["seconds"]) for line in lines]
    assert told == [
        ("waiting", 1, 0),
        ("waiting", 61, 60),
        ("waiting", 121, 120),
        ("waiting ended", 150, 149),
    ]


def test_each_part_that_fails_is_a_problem_until_it_has_succeeded() -> None:
    outages = build_outages(Clock())
    outages.failed("index", OSError("full"), part="uploads-0")
    outages.failed("index", OSError("read-only"), part="uploads-1")
    outages.failed("inflight", OSError())
    outages.ended("index", part="uploads-0")
    assert outages.problems == ["waiting for index (uploads-1): read-only", "waiting for inflight: OSError"]


def test_what_has_not_failed_ends_nothing() -> None:
    with capture_logs() as lines:
        outages = build_outages(Clock())
        outages.ended("log")
        outages.failed("log", OSError("away"), part="topic")
        outages.ended("log", part="poll")
    assert outages.problems == ["waiting for log (topic): away"]
    assert [line["event"] for line in lines] == ["waiting"]
