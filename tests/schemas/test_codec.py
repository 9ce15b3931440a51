from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from fakes.sample_events import NOON, NOON_MS, SAMPLE_EVENTS, build_upload, events
from schemas.codec import EncodedEvent, EventDecoder, encode_event, encode_event_json
from schemas.errors import BadEvent
from schemas.events import DeleteEvent, Event, TextContent, UploadEvent

Encode = Callable[[Event], EncodedEvent]
DECODER = EventDecoder()
both_formats = pytest.mark.parametrize(
    "encode", [pytest.param(encode_event, id="avro"), pytest.param(encode_event_json, id="json")]
)


def decode(encoded: EncodedEvent, **parts: Any) -> Event:
    record: dict[str, Any] = {
        "key": encoded.key,
        "value": encoded.value,
        "headers": encoded.headers,
        "timestamp_ms": 0,
    }
    return DECODER.decode(**record | parts)


def decode_json(document: Any, **parts: Any) -> Event:
    value = json.dumps(document).encode()
    return decode(EncodedEvent(b"shoe-1", value), **parts)


@both_formats
@pytest.mark.parametrize("event", SAMPLE_EVENTS.values(), ids=SAMPLE_EVENTS.keys())
def test_an_event_comes_back_as_it_was_sent(encode: Encode, event: Event) -> None:
    assert decode(encode(event)) == event


@both_formats
@given(event=events)
def test_any_valid_event_comes_back_as_it_was_sent(encode: Encode, event: Event) -> None:
    assert decode(encode(event)) == event


@both_formats
def test_metadata_keeps_its_types(encode: Encode) -> None:
    metadata = {"text": "1", "number": 1.0, "boolean": True}
    event = decode(encode(build_upload(metadata=metadata)))
    assert isinstance(event, UploadEvent)
    assert {k: type(v) for k, v in event.metadata.items()} == {"text": str, "number": float, "boolean": bool}


@both_formats
def test_the_key_is_the_content_id_in_utf8(encode: Encode) -> None:
    assert encode(build_upload(content_id="靴")).key == "靴".encode()


@both_formats
def test_an_event_that_breaks_a_rule_is_not_encoded(encode: Encode) -> None:
    with pytest.raises(BadEvent) as caught:
        encode(build_upload(content=TextContent("")))
    assert caught.value.reason == "empty_content"


@both_formats
def test_a_time_is_rounded_down_to_the_millisecond(encode: Encode) -> None:
    event = decode(encode(build_upload(occurred_at=NOON.replace(microsecond=250_999))))
    assert event.occurred_at == NOON


def test_the_avro_value_starts_with_marker_and_fingerprint_and_needs_no_header() -> None:
    encoded = encode_event(build_upload())
    assert encoded.value[:10].hex() == "c30123d34fc1b3e2be17"
    assert encoded.headers == ()


def test_the_json_value_names_its_content_type() -> None:
    assert encode_event_json(build_upload()).headers == (("content-type", b"application/json"),)


def test_a_null_value_deletes_the_content_of_its_key_without_a_version() -> None:
    event = DECODER.decode(key="靴".encode(), value=None, headers=(), timestamp_ms=NOON_MS)
    assert event == DeleteEvent(event_id="", content_id="靴", source="", occurred_at=NOON)


@pytest.mark.parametrize(
    ("timestamp_ms", "year"),
    [(-1, 1990), (0, 1990), (2**63 - 1, 2099), (-(2**63), 1990)],
    ids=["no timestamp", "epoch", "far future", "far past"],
)
def test_a_null_value_is_a_delete_whatever_its_timestamp_says(timestamp_ms: int, year: int) -> None:
    event = DECODER.decode(key=b"shoe-1", value=None, headers=(), timestamp_ms=timestamp_ms)
    assert event.occurred_at.year == year


@pytest.mark.parametrize("key", [None, b""], ids=["null", "empty"])
@pytest.mark.parametrize("value", [None, encode_event(build_upload()).value], ids=["delete", "upsert"])
def test_a_record_without_key_is_set_aside(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(BadEvent) as caught:
        DECODER.decode(key=key, value=value, headers=(), timestamp_ms=0)
    assert caught.value.reason == "missing_key"


@both_formats
@pytest.mark.parametrize("key", [b"shoe-2", b"shoe-1 ", b"\xff"], ids=["other", "longer", "not UTF-8"])
def test_a_key_that_is_not_the_content_id_is_set_aside(encode: Encode, key: bytes) -> None:
    with pytest.raises(BadEvent) as caught:
        decode(encode(build_upload()), key=key)
    assert caught.value.reason == "key_mismatch"


@pytest.mark.parametrize(
    ("key", "reason"),
    [(b"\xff\xfe", "not_unicode"), (b"x" * 513, "content_id_too_long")],
    ids=["not UTF-8", "513 bytes"],
)
def test_a_null_value_with_an_impossible_key_is_set_aside(key: bytes, reason: str) -> None:
    with pytest.raises(BadEvent) as caught:
        DECODER.decode(key=key, value=None, headers=(), timestamp_ms=0)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        pytest.param(b"", (), id="empty value"),
        pytest.param(b"hello", (), id="plain text"),
        pytest.param(b"[1]", (), id="array"),
        pytest.param(b"Obj\x01", (), id="avro container file"),
        pytest.param(b"\x00\x00\x00\x01", (), id="too short for a schema id"),
        pytest.param(b"\x00\x00\x00\x00\x01", (("content-type", b"application/json"),), id="zeros as JSON"),
        pytest.param(b'{"content_id": "shoe-1"', (), id="truncated JSON"),
        pytest.param(b"{" + b'"a":[' * 100_000, (), id="deep JSON"),
        pytest.param(b'{"version": ' + b"9" * 5000 + b"}", (), id="a number of 5,000 digits"),
    ],
)
def test_bytes_in_no_wire_format_are_undecodable(
    value: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    with pytest.raises(BadEvent) as caught:
        DECODER.decode(key=b"shoe-1", value=value, headers=headers, timestamp_ms=0)
    assert caught.value.reason == "undecodable"


def test_json_that_is_not_utf8_is_set_aside_as_not_unicode() -> None:
    with pytest.raises(BadEvent) as caught:
        DECODER.decode(key=b"shoe-1", value=b'{"content_id": "\xff"}', headers=(), timestamp_ms=0)
    assert caught.value.reason == "not_unicode"


def test_the_content_type_header_makes_an_array_json_of_the_wrong_shape() -> None:
    headers = [("Content-Type", b"application/json; charset=utf-8")]
    with pytest.raises(BadEvent) as caught:
        DECODER.decode(key=b"shoe-1", value=b"[1]", headers=headers, timestamp_ms=0)
    assert caught.value.reason == "invalid_field"


@pytest.mark.parametrize(
    "headers",
    [(), (("content-type", None),), (("content-type", b"text/plain"),), (("trace", b"1"),)],
    ids=["none", "null content type", "another content type", "another header"],
)
def test_json_is_known_by_its_first_byte_too(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    event = decode_json({"content_id": "shoe-1", "content": {"text": "shoe"}}, headers=headers)
    assert event.content_id == "shoe-1"


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b" \r\n\t"], ids=["byte order mark", "white space"])
def test_json_may_start_with_white_space_or_a_byte_order_mark(prefix: bytes) -> None:
    encoded = encode_event_json(build_upload())
    assert decode(EncodedEvent(encoded.key, prefix + encoded.value)) == build_upload()


def test_a_single_object_value_is_known_whatever_its_content_type_says() -> None:
    headers = (("content-type", b"application/json"),)
    assert decode(encode_event(build_upload()), headers=headers) == build_upload()


@pytest.mark.parametrize(
    ("value", "schema_id"),
    [(b"\x00\x00\x00\x00\x2adatum", 42), (bytes(400), 0), (b"\x00\xff\xff\xff\xff", 2**32 - 1)],
)
def test_the_framing_of_a_registry_is_one_bad_record_that_says_what_is_missing(
    value: bytes, schema_id: int
) -> None:
    with pytest.raises(BadEvent, match="needs a schema registry") as caught:
        DECODER.decode(key=b"shoe-1", value=value, headers=(), timestamp_ms=0)
    assert caught.value.reason == "unknown_schema"
    assert f"schema id {schema_id} of the Confluent wire format" in caught.value.detail


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        pytest.param(b'[{"content_id": "k"}]', "publish one object in a record", id="a JSON array"),
        pytest.param(b"Obj\x01\x04", "an Avro container file", id="an Avro file"),
        pytest.param(b"\x1f\x8b\x08", "this is gzip", id="gzip"),
        pytest.param('{"a": 1}'.encode("utf-16"), "publish JSON in UTF-8", id="UTF-16"),
    ],
)
def test_a_value_of_a_known_foreign_format_is_named_with_what_to_publish_instead(
    value: bytes, sentence: str
) -> None:
    with pytest.raises(BadEvent, match=f"no known wire format.*{sentence}"):
        EventDecoder().decode(key=b"k", value=value, timestamp_ms=0)
