"""Which dead letters go back to their topic, and as what."""

from __future__ import annotations

import json

import pytest

from cliptide.dead_letters.republishing import Republishing, content_by
from consumer.dead_letters.dead_letter import SetAside, headers_from_set_aside
from event_log.records import Headers, Record
from schemas.dead_letters import VALUE_OMITTED_HEADER
from schemas.mapping.loading import load_mapping

TOPIC = "uploads"


def record(offset: int, key: bytes | None = b"boot", **changes: object) -> Record:
    fields: dict[str, object] = {
        "topic": TOPIC,
        "partition": 0,
        "offset": offset,
        "key": key,
        "value": b"value %d" % offset,
        "headers": (("content-type", b"application/json"), ("trace", None)),
        "timestamp_ms": 1000 + offset,
        "assignment_epoch": 1,
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def letter_of(origin: Record, place: int = 0, reason: str = "not_an_image", headers: Headers = ()) -> Record:
    """The dead letter that the consumer publishes for a record."""
    set_aside = SetAside(reason, "why", "prepare", "BadContent")
    context = headers_from_set_aside(origin, set_aside, connector="cliptide", worker_id="w")
    return Record(
        "letters", 0, place, origin.key, origin.value, (*context, *headers), origin.timestamp_ms + 500, 1
    )


def sent(republishing: Republishing, letters: list[Record], log: list[Record]) -> list[bytes]:
    republishing.offer(letters)
    republishing.compare(log)
    return [event.encoded.value for event in republishing.events(letters)]


def test_a_letter_goes_back_as_its_record_was() -> None:
    origin = record(3)
    republishing = Republishing(TOPIC)
    letters = [letter_of(origin)]
    republishing.offer(letters)
    republishing.compare([origin])
    [event] = republishing.events(letters)
    assert (event.encoded.key, event.encoded.value) == (origin.key, origin.value)
    assert event.encoded.headers == origin.headers


def test_headers_that_a_record_had_from_an_earlier_death_go_back_too() -> None:
    earlier = letter_of(record(1))
    origin = record(3, headers=earlier.headers)
    letters = [letter_of(origin)]
    republishing = Republishing(TOPIC)
    republishing.offer(letters)
    [event] = republishing.events(letters)
    assert event.encoded.headers == earlier.headers


def test_only_letters_of_the_wanted_reason_go_back() -> None:
    letters = [letter_of(record(1, b"a"), 0), letter_of(record(2, b"b"), 1, "text_too_long")]
    republishing = Republishing(TOPIC, "text_too_long")
    assert sent(republishing, letters, []) == [b"value 2"]
    assert republishing.refused == {}


def test_a_letter_without_its_value_never_becomes_a_delete() -> None:
    omitted = letter_of(record(1, value=None), headers=((VALUE_OMITTED_HEADER, b"too_large"),))
    republishing = Republishing(TOPIC)
    assert sent(republishing, [omitted], []) == []
    assert republishing.refused == {"value_omitted": 1}


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        pytest.param(letter_of(record(1, value=None)), "without_value", id="a null value"),
        pytest.param(letter_of(record(1, None)), "without_key", id="no key"),
        pytest.param(letter_of(record(1, topic="other")), "of_another_topic", id="another topic"),
        pytest.param(record(1), "without_origin", id="no dead letter of ours"),
    ],
)
def test_what_can_never_go_back_is_counted(letter: Record, why: str) -> None:
    republishing = Republishing(TOPIC)
    assert sent(republishing, [letter], []) == []
    assert republishing.refused == {why: 1}


def test_a_letter_whose_key_has_a_later_record_stays() -> None:
    republishing = Republishing(TOPIC)
    assert sent(republishing, [letter_of(record(1))], [record(1), record(2)]) == []
    assert republishing.refused == {"superseded": 1}


@pytest.mark.parametrize(("after_ms", "is_sent"), [(-1, True), (501, False)], ids=["earlier", "later"])
def test_between_partitions_the_time_tells_what_is_later(after_ms: int, is_sent: bool) -> None:
    origin = record(5)
    elsewhere = record(0, partition=1, timestamp_ms=origin.timestamp_ms + after_ms)
    assert bool(sent(Republishing(TOPIC), [letter_of(origin)], [origin, elsewhere])) is is_sent


def test_of_several_letters_of_a_key_the_newest_goes_back_once() -> None:
    letters = [letter_of(record(7), 0), letter_of(record(7), 1), letter_of(record(4), 2)]
    republishing = Republishing(TOPIC)
    assert sent(republishing, letters, [record(4), record(7)]) == [b"value 7"]
    assert republishing.refused == {"duplicate": 1, "superseded": 1}
    ascending = [letter_of(record(4), 0), letter_of(record(7), 1)]
    assert sent(Republishing(TOPIC), ascending, []) == [b"value 7"]


def row(offset: int, content_id: str, key: bytes, op: str = "u") -> Record:
    value = {
        "op": op,
        "ts_ms": 1_763_630_000_000,
        "after": {"id": content_id, "text": "a shoe"},
        "before": {"id": content_id},
    }
    return record(offset, key, value=json.dumps(value).encode())


def test_with_a_mapping_the_records_of_other_contents_supersede_nothing_though_they_share_a_key() -> None:
    log = [row(1, "a", b"table"), row(2, "b", b"table"), row(3, "c", b"table")]
    republishing = Republishing(TOPIC, content_of=content_by(load_mapping("debezium")))
    letters = [letter_of(log[0], 0, "reference_absent"), letter_of(log[1], 1, "reference_absent")]
    assert sent(republishing, letters, log) == [log[0].value, log[1].value]
    assert republishing.refused == {}


@pytest.mark.parametrize("op", ["u", "d"])
def test_with_a_mapping_a_later_record_of_the_content_supersedes_whatever_its_key(op: str) -> None:
    log = [row(1, "a", b"one"), row(2, "a", b"other", op)]
    republishing = Republishing(TOPIC, content_of=content_by(load_mapping("debezium")))
    assert sent(republishing, [letter_of(log[0])], log) == []
    assert republishing.refused == {"superseded": 1}


def test_what_a_mapping_cannot_read_is_told_by_its_key() -> None:
    log = [record(1, b"one"), record(2, b"one"), record(3, b"other")]
    republishing = Republishing(TOPIC, content_of=content_by(load_mapping("debezium")))
    assert sent(republishing, [letter_of(log[0]), letter_of(log[2], 1)], log) == [b"value 3"]
