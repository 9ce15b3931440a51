"""Whatever a record holds, decoding ends in an event, a bad event or an unknown schema."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.sample_events import SAMPLE_EVENTS
from schemas.codec import EventDecoder, encode_event, encode_event_json
from schemas.errors import BAD_EVENT_REASONS, BadEvent, UnknownSchema
from schemas.validation import validate_event
from tests.hostile.limits import earlier_objects_frozen

DECODER = EventDecoder()
HEADER = encode_event(SAMPLE_EVENTS["text"]).value[:10]
VALID_VALUES = [
    encode(event).value for event in SAMPLE_EVENTS.values() for encode in (encode_event, encode_event_json)
]


def outcome_of(key: bytes | None, value: bytes | None) -> str:
    try:
        event = DECODER.decode(key=key, value=value, headers=(), timestamp_ms=0)
    except BadEvent as error:
        return error.reason
    except UnknownSchema:
        return "unknown_schema"
    validate_event(event)
    return "event" if event.content_id.encode() == key else "an event of another key"


OUTCOMES = {"event", "unknown_schema"} | BAD_EVENT_REASONS


def zigzag(number: int) -> bytes:
    """Avro's variable-length long."""
    number = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


@given(key=st.none() | st.binary(max_size=600), value=st.none() | st.binary(max_size=300))
def test_any_bytes(key: bytes | None, value: bytes | None) -> None:
    assert outcome_of(key, value) in OUTCOMES


@given(datum=st.binary(max_size=300))
def test_any_datum_behind_a_known_fingerprint(datum: bytes) -> None:
    assert outcome_of(b"shoe-1", HEADER + datum) in OUTCOMES


@settings(max_examples=500)
@given(value=st.sampled_from(VALID_VALUES), data=st.data())
def test_any_change_of_a_few_bytes(value: bytes, data: st.DataObject) -> None:
    changed = bytearray(value)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert outcome_of(b"shoe-1", bytes(changed)) in OUTCOMES


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
_field_names = ["content_id", "occurred_at", "operation", "version", "content", "event_id", "source"]
_more_names = ["owner_id", "link", "metadata"]


@settings(max_examples=500)
@given(
    fields=st.dictionaries(st.sampled_from(_field_names + _more_names), _json_values),
    content=st.dictionaries(st.sampled_from(["text", "image", "reference"]), _json_values),
)
def test_any_values_in_the_fields_of_json(fields: dict[str, object], content: dict[str, object]) -> None:
    document = {"content_id": "shoe-1", "content": content} | fields
    assert outcome_of(b"shoe-1", json.dumps(document).encode()) in OUTCOMES


@pytest.mark.parametrize("value", VALID_VALUES)
def test_a_value_cut_anywhere_is_never_an_event(value: bytes) -> None:
    assert {outcome_of(b"shoe-1", value[:end]) for end in range(len(value))} <= {"undecodable", "not_unicode"}


def test_bytes_behind_the_datum_are_undecodable() -> None:
    value = encode_event(SAMPLE_EVENTS["text"]).value
    assert outcome_of(b"shoe-1", value) == "event"
    assert outcome_of(b"shoe-1", value + b"\x00") == "undecodable"


UP_TO_CONTENT = zigzag(6) + b"shoe-1" + zigzag(1_772_368_215_250) + zigzag(0) + zigzag(0)
UP_TO_METADATA = UP_TO_CONTENT + zigzag(1) + zigzag(4) + b"shoe" + zigzag(0) * 4
NO_TITLE = zigzag(0)
NOTHING_REMOVED = zigzag(0)
UP_TO_LIST = UP_TO_METADATA + zigzag(1) + zigzag(4) + b"tags" + zigzag(3)
HUGE_LENGTHS = {
    "content id": b"",
    "image": UP_TO_CONTENT + zigzag(2),
    "metadata": UP_TO_METADATA,
    "metadata key": UP_TO_METADATA + zigzag(1),
    "list": UP_TO_LIST,
    "text of a list": UP_TO_LIST + zigzag(1),
    "title": UP_TO_METADATA + zigzag(0) + zigzag(1),
    "names to remove": UP_TO_METADATA + zigzag(0) + NO_TITLE,
    "name to remove": UP_TO_METADATA + zigzag(0) + NO_TITLE + zigzag(1),
}


def test_the_datum_that_the_huge_lengths_are_put_into_is_an_event() -> None:
    assert outcome_of(b"shoe-1", HEADER + UP_TO_METADATA + zigzag(0) + NO_TITLE + NOTHING_REMOVED) == "event"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", [2**60, -(2**60), 2**31, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("start", HUGE_LENGTHS.values(), ids=HUGE_LENGTHS.keys())
def test_a_huge_length_is_undecodable_and_allocates_nothing(start: bytes, length: int) -> None:
    tracemalloc.start()
    try:
        assert outcome_of(b"shoe-1", HEADER + start + zigzag(length) + b"\x02" * 1000) == "undecodable"
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(60)
def test_a_million_metadata_entries_under_one_key_end_in_reasonable_time() -> None:
    entry = b"\x00" + zigzag(2) + b"\x01"  # an empty key, a boolean
    value = HEADER + UP_TO_METADATA + zigzag(2**60) + entry * 1_000_000
    assert outcome_of(b"shoe-1", value) == "undecodable"


MANY = {
    "blocks of one entry": (zigzag(1) + b"\x02k" + b"\x04\x00") * 2_000_000 + b"\x00",
    "one block": zigzag(2_000_000) + (b"\x02k" + b"\x04\x00") * 2_000_000 + b"\x00",
    "blocks that name their size": (zigzag(-1) + zigzag(4) + b"\x02k" + b"\x04\x00") * 1_000_000 + b"\x00",
}


@pytest.mark.parametrize("entries", MANY.values(), ids=MANY)
def test_metadata_is_counted_while_it_is_read(entries: bytes) -> None:
    with earlier_objects_frozen():
        began = time.thread_time()
        assert outcome_of(b"shoe-1", HEADER + UP_TO_METADATA + entries) == "metadata_too_large"
        assert time.thread_time() - began < 0.1
