from __future__ import annotations

import base64
import json
from datetime import datetime, timezone
from typing import Any

import pytest

from fakes.sample_events import (
    NOON,
    NOON_MS,
    SAMPLE_EVENTS,
    SHA256,
    build_reference,
    build_upload,
)
from schemas.codec import EventDecoder
from schemas.errors import BadEvent
from schemas.events import DeleteEvent, Event, ImageContent, TextContent, UploadEvent
from schemas.json_format import MAX_STRINGS, event_from_json, json_from_event, parse_json

REFERENCE = {"uri": "s3://uploads/shoe-1.jpg", "sha256": SHA256, "size_bytes": 4_194_304, "modality": "image"}
IMAGE = bytes(range(248, 256))  # its base64 holds + and /, and needs padding


def decode(**fields: Any) -> Event:
    document = {"content_id": "shoe-1", "content": {"text": "a red shoe"}} | fields
    return EventDecoder().decode(
        key=b"shoe-1", value=json.dumps(document).encode(), headers=(), timestamp_ms=NOON_MS
    )


def decode_upload(**fields: Any) -> UploadEvent:
    event = decode(**fields)
    assert isinstance(event, UploadEvent)
    return event


def test_content_id_and_content_are_enough() -> None:
    assert decode() == UploadEvent(
        event_id="", content_id="shoe-1", source="", occurred_at=NOON, content=TextContent("a red shoe")
    )


def test_null_means_left_out() -> None:
    nulls = ["operation", "version", "event_id", "source", "owner_id", "link", "metadata", "occurred_at"]
    assert decode(**dict.fromkeys(nulls)) == decode()


def test_unknown_fields_are_ignored_everywhere() -> None:
    assert (
        decode(content={"text": "a red shoe", "language": "en"}, colour={"of": ["the", "future"]}) == decode()
    )


def test_a_delete_needs_no_content() -> None:
    event = decode(operation="delete", content=None, version=3)
    assert event == DeleteEvent(event_id="", content_id="shoe-1", source="", occurred_at=NOON, version=3)


@pytest.mark.parametrize(
    "encoded",
    [
        base64.b64encode(IMAGE).decode(),
        base64.urlsafe_b64encode(IMAGE).decode(),
        base64.b64encode(IMAGE).decode().rstrip("="),
        base64.encodebytes(IMAGE).decode(),
        "data:image/png;base64," + base64.b64encode(IMAGE).decode(),
    ],
    ids=["standard", "URL-safe", "unpadded", "with a line's end", "a data URL"],
)
def test_image_bytes_are_base64_of_either_alphabet(encoded: str) -> None:
    assert decode_upload(content={"image": encoded}).content == ImageContent(IMAGE)


@pytest.mark.parametrize("digest", [SHA256, SHA256.upper()], ids=["lower case", "upper case"])
def test_a_reference_has_its_digest_in_hexadecimal(digest: str) -> None:
    event = decode_upload(content={"reference": REFERENCE | {"sha256": digest}})
    assert event.content == build_reference()


@pytest.mark.parametrize(
    "value",
    [
        NOON_MS,
        "2026-03-01T12:30:15.250Z",
        "2026-03-01T12:30:15.25Z",
        "2026-03-01t12:30:15.250999z",
        "2026-03-01 12:30:15.250+00:00",
        "2026-03-01T14:00:15.250123456+01:30",
        "2026-02-28T23:30:15.250-13:00",
    ],
)
def test_occurred_at_is_epoch_milliseconds_or_rfc_3339(value: Any) -> None:
    assert decode(occurred_at=value).occurred_at == NOON


def test_occurred_at_without_fraction_is_a_whole_second() -> None:
    expected = datetime(2026, 3, 1, 12, 30, 15, tzinfo=timezone.utc)
    assert decode(occurred_at="2026-03-01T12:30:15Z").occurred_at == expected


def test_metadata_integers_become_doubles_and_nulls_are_left_out() -> None:
    event = decode_upload(metadata={"count": 3, "big": 2**53, "ok": True, "name": "x", "none": None})
    assert event.metadata == {"count": 3.0, "big": 2.0**53, "ok": True, "name": "x"}
    assert {k: type(v) for k, v in event.metadata.items()} == {
        "count": float,
        "big": float,
        "ok": bool,
        "name": str,
    }


BAD_FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "content id missing": ("invalid_field", {"content_id": None}),
    "content id a number": ("invalid_field", {"content_id": 1}),
    "content id too long": ("content_id_too_long", {"content_id": "x" * 513}),
    "content id of another content": ("key_mismatch", {"content_id": "shoe-2"}),
    "content id with a lone surrogate": ("not_unicode", {"content_id": "\ud800"}),
    "operation unknown": ("invalid_field", {"operation": "replace"}),
    "operation a number": ("invalid_field", {"operation": 1}),
    "version a text": ("invalid_field", {"version": "1"}),
    "version a boolean": ("invalid_field", {"version": True}),
    "version a fraction": ("invalid_field", {"version": 1.0}),
    "version above 64 bits": ("invalid_field", {"version": 2**63}),
    "occurred at a boolean": ("invalid_field", {"occurred_at": True}),
    "occurred at a fraction": ("invalid_field", {"occurred_at": NOON_MS + 0.5}),
    "occurred at in seconds": ("invalid_field", {"occurred_at": NOON_MS // 1000}),
    "occurred at in microseconds": ("invalid_field", {"occurred_at": NOON_MS * 1000}),
    "occurred at beyond any calendar": ("invalid_field", {"occurred_at": 10**30}),
    "occurred at without zone": ("invalid_field", {"occurred_at": "2026-03-01T12:30:15"}),
    "occurred at a date": ("invalid_field", {"occurred_at": "2026-03-01"}),
    "occurred at no such day": ("invalid_field", {"occurred_at": "2026-02-30T12:30:15Z"}),
    "occurred at no such zone": ("invalid_field", {"occurred_at": "2026-02-03T12:30:15+24:00"}),
    "occurred at before the year one": ("invalid_field", {"occurred_at": "0001-01-01T00:00:00+01:00"}),
    "content missing": ("empty_content", {"content": None}),
    "content a text": ("invalid_field", {"content": "a red shoe"}),
    "content unknown": ("invalid_field", {"content": {"video": "x"}}),
    "content of nulls": ("invalid_field", {"content": {"text": None}}),
    "content twofold": ("invalid_field", {"content": {"text": "x", "image": "eA=="}}),
    "text a number": ("invalid_field", {"content": {"text": 1}}),
    "text empty": ("empty_content", {"content": {"text": ""}}),
    "image empty": ("empty_content", {"content": {"image": ""}}),
    "image not base64": ("invalid_field", {"content": {"image": "!!!!"}}),
    "image of a data URL in another encoding": ("invalid_field", {"content": {"image": "data:image/png,eA"}}),
    "image base64 of five digits": ("invalid_field", {"content": {"image": "eAeAe"}}),
    "image not ASCII": ("invalid_field", {"content": {"image": "é"}}),
    "image a list": ("invalid_field", {"content": {"image": [1, 2]}}),
    "reference a link": ("invalid_field", {"content": {"reference": "s3://a/b"}}),
    "reference with a size as text": (
        "invalid_field",
        {"content": {"reference": REFERENCE | {"size_bytes": "17"}}},
    ),
    "reference with an empty etag": ("invalid_field", {"content": {"reference": REFERENCE | {"etag": ""}}}),
    "reference with a long etag": (
        "invalid_field",
        {"content": {"reference": REFERENCE | {"etag": "e" * 1025}}},
    ),
    "long title": ("invalid_field", {"title": "靴" * 513}),
    "title a list": ("invalid_field", {"title": ["a", "b"]}),
    "title with a lone surrogate": ("not_unicode", {"title": "\ud800"}),
    "list of 10,000 texts": ("invalid_field", {"metadata": {"tags": ["t"] * 10_000}}),
    "list of 65 texts": ("invalid_field", {"metadata": {"tags": ["t"] * 65}}),
    "list with a number": ("invalid_field", {"metadata": {"tags": ["t", 1]}}),
    "list with a null": ("invalid_field", {"metadata": {"tags": ["t", None]}}),
    "list in a list": ("invalid_field", {"metadata": {"tags": [["t"]]}}),
    "lists of too many bytes": ("metadata_too_large", {"metadata": {"a": ["t" * 300] * 60}}),
    "reference without uri": ("invalid_field", {"content": {"reference": REFERENCE | {"uri": None}}}),
    "reference to a video": ("invalid_field", {"content": {"reference": REFERENCE | {"modality": "video"}}}),
    "reference with empty digest": (
        "invalid_field",
        {"content": {"reference": REFERENCE | {"sha256": ""}}},
    ),
    "owner a number": ("invalid_field", {"owner_id": 9}),
    "metadata a list": ("invalid_field", {"metadata": []}),
    "metadata nested": ("invalid_field", {"metadata": {"a": {}}}),
    "metadata not a number": ("invalid_field", {"metadata": {"a": float("nan")}}),
    "metadata infinite": ("invalid_field", {"metadata": {"a": float("inf")}}),
    "metadata an id that no double holds": ("invalid_field", {"metadata": {"a": 2**53 + 1}}),
    "metadata beyond every double": ("invalid_field", {"metadata": {"a": 10**400}}),
    "metadata of 65 entries": ("metadata_too_large", {"metadata": {str(i): 1 for i in range(65)}}),
}


@pytest.mark.parametrize(("reason", "fields"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_bad_field_is_set_aside_with_a_reason(reason: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BadEvent) as caught:
        decode(**fields)
    assert caught.value.reason == reason


def test_an_error_names_the_field() -> None:
    with pytest.raises(BadEvent, match=r"content\.reference\.size_bytes: not an integer"):
        decode(content={"reference": REFERENCE | {"size_bytes": "4"}})


def test_a_parsed_document_can_be_decoded_without_a_record() -> None:
    document = json_from_event(build_upload())
    assert event_from_json(document, timestamp_ms=0) == build_upload()


@pytest.mark.parametrize("event", SAMPLE_EVENTS.values(), ids=SAMPLE_EVENTS.keys())
def test_no_null_is_written(event: Event) -> None:
    assert None not in json_from_event(event).values()


def test_json_of_very_many_strings_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadEvent, match="more than 100000 strings"):
        parse_json(json.dumps({str(number): 1 for number in range(MAX_STRINGS + 1)}).encode())


def test_quotation_marks_in_a_text_are_no_strings() -> None:
    text = '"' * (3 * MAX_STRINGS)
    assert parse_json(json.dumps({"text": text}).encode()) == {"text": text}
