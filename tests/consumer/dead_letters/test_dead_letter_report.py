"""What the log says of records that are set aside."""

from __future__ import annotations

from structlog.testing import capture_logs

from consumer.dead_letters.dead_letter import SetAside
from consumer.dead_letters.dead_letter_report import DeadLetterReport
from tests.consumer.records import record
from tests.consumer.running import World


def set_aside(reason: str) -> SetAside:
    return SetAside(reason, f"it is {reason}", "decode", "BadEvent")


def test_many_dead_letters_are_one_line_a_minute_with_counts_by_reason_and_an_example() -> None:
    now = 0.0
    with capture_logs() as lines:
        report = DeadLetterReport(clock=lambda: now)
        for second in range(125):
            now = float(second)
            report.add(record(second), set_aside("undecodable" if second % 2 else "missing_key"))
            report.tell_if_due()
        report.tell()
        report.tell()
    assert [line["counts"] for line in lines] == [
        {"missing_key": 1},
        {"undecodable": 30, "missing_key": 30},
        {"undecodable": 30, "missing_key": 30},
        {"undecodable": 2, "missing_key": 2},
    ]
    first, second = record(0), record(1)
    assert lines[0]["example"] == f"{first.topic}-{first.partition}@{first.offset}"
    assert lines[1]["example"] == f"{second.topic}-{second.partition}@{second.offset}"
    assert (lines[1]["reason"], lines[1]["detail"]) == ("undecodable", "it is undecodable")


def test_the_last_ones_are_told_although_no_other_follows() -> None:
    now = 0.0
    with capture_logs() as lines:
        report = DeadLetterReport(clock=lambda: now)
        report.add(record(0), set_aside("undecodable"))
        report.tell_if_due()
        report.add(record(1), set_aside("undecodable"))
        report.tell_if_due()
        now = 60.0
        report.tell_if_due()
        report.tell_if_due()
    assert [line["counts"] for line in lines] == [{"undecodable": 1}, {"undecodable": 1}]


def test_a_consumer_tells_of_its_dead_letters_and_never_of_their_contents(world: World) -> None:
    world.append(b"secret-key", b"secret garbage")
    with capture_logs() as lines:
        with world.running():
            world.wait_committed(world.append(b"other", b"more garbage"))
    told = [line for line in lines if line["event"] == "records set aside"]
    assert sum(count for line in told for count in line["counts"].values()) == 2
    assert told[0]["example"] == "uploads-0@0"
    assert "secret" not in str(told)
