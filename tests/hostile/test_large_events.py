"""The largest value of each field of an event costs little to refuse, or to take, in each wire format."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

import fastavro
import pytest

from schemas.avro.format import current_schema
from schemas.codec import EventDecoder
from schemas.errors import BadEvent, UnknownSchema
from schemas.events import TextContent, UploadEvent
from schemas.json_format import json_from_event
from tests.hostile.limits import assert_bounded

LARGEST = 16 * 2**20
LONG = "a" * (LARGEST - 1000)
TIME_MS = 1_700_000_000_000


MAX_THREAD_SECONDS = 2.0  # a thread of the consumer decodes, and holds up no event loop


def uploaded() -> dict[str, Any]:
    occurred_at = datetime.fromtimestamp(TIME_MS / 1000, timezone.utc)
    return json_from_event(UploadEvent("", "a", "", occurred_at, TextContent("a red dress")))


PATCH: dict[str, Any] = {"operation": "patch", "content": None}
TEXTS = ("content_id", "event_id", "source", "owner_id", "link")
JSON_VALUES: Mapping[str, Any] = {
    **{
        f"{name} that is long": {name: LONG}
        for name in ("content_id", "event_id", "source", "owner_id", "link", "title")
    },
    "a long operation": {"operation": LONG},
    "a long time": {"occurred_at": LONG},
    "a version of many digits": {"version": int("9" * 4000)},
    "an unknown field": {LONG: 1},
    "a long text": {"content": {"text": LONG}},
    "an image": {"content": {"image": base64.b64encode(bytes(LARGEST * 3 // 4 - 1000)).decode()}},
    "an image that is not base64": {"content": {"image": "*" * (LARGEST - 1000)}},
    "a long reference": {
        "content": {"reference": {"uri": LONG, "sha256": "0" * 64, "size_bytes": 1, "modality": "text"}}
    },
    "a long digest": {
        "content": {"reference": {"uri": "file:///a", "sha256": LONG, "size_bytes": 1, "modality": "text"}}
    },
    "a content of another kind": {"content": {LONG: 1}},
    "metadata with a long key": {"metadata": {LONG: 1}},
    "metadata with a long text": {"metadata": {"a": LONG}},
    "metadata of many entries": {"metadata": {str(number): 1 for number in range(LARGEST // 12)}},
    "metadata that is a list": {"metadata": {"a": [0] * (LARGEST // 4)}},
    "names to remove that are many": PATCH | {"remove": ["title"] * (LARGEST // 10)},
    "a long name to remove": PATCH | {"remove": [f"metadata.{LONG}"]},
    "metadata with a list of many texts": {"metadata": {"a": ["b"] * (LARGEST // 6)}},
}
DEEP: Mapping[str, bytes] = {
    "brackets": b'{"content_id":' + b"[" * (LARGEST - 100),
    "objects": b'{"a":' * (LARGEST // 5 - 100),
    "blanks": b"{" + b" " * (LARGEST - 100),
    "digits": b'{"version":' + b"9" * (LARGEST - 100) + b"}",
    "escapes": b'{"content_id":"' + b"\\u0061" * (LARGEST // 6 - 100) + b'"}',
    "one name again and again": b"{" + b'"a":0,' * (LARGEST // 6 - 100) + b'"a":0}',
    "numbers": b'{"a":[' + b"1," * (LARGEST // 2 - 100) + b"1]}",
    "large numbers": b'{"a":[' + b"300," * (LARGEST // 4 - 100) + b"1]}",
    "fractions": b'{"a":[' + b"1.5," * (LARGEST // 4 - 100) + b"1]}",
    "lists": b'{"a":[' + b"[]," * (LARGEST // 3 - 100) + b"1]}",
    "objects in a list": b'{"a":[' + b"{}," * (LARGEST // 3 - 100) + b"1]}",
    "lists in lists": b'{"a":[' + b"[[]]," * (LARGEST // 5 - 100) + b"1]}",
    "escaped quotes without an end": b"[" * 200_000 + b'"\\' * (LARGEST // 2 - 100_100),
    "commas in a text": b'{"content_id":"a","content":{"text":"' + b"," * (LARGEST - 100) + b'"}}',
}


def decode(value: bytes, key: bytes = b"a") -> None:
    with suppress(BadEvent, UnknownSchema):
        EventDecoder().decode(value=value, key=key, timestamp_ms=TIME_MS)


@pytest.mark.parametrize("values", JSON_VALUES.values(), ids=JSON_VALUES)
def test_the_largest_value_of_a_json_field_costs_little(values: Mapping[str, Any]) -> None:
    value = json.dumps({**uploaded(), **values}, ensure_ascii=False).encode()
    assert_bounded(lambda: decode(value), len(value), MAX_THREAD_SECONDS)


def test_every_field_of_an_event_has_a_largest_value() -> None:
    schema = json.loads(files("schemas").joinpath("upload_event.avsc").read_text("utf-8"))
    tried = {name for values in JSON_VALUES.values() for name in values}
    assert {field["name"] for field in schema["fields"]} <= tried


@pytest.mark.parametrize("value", DEEP.values(), ids=DEEP)
def test_json_that_is_large_in_itself_costs_little(value: bytes) -> None:
    assert_bounded(lambda: decode(value), len(value), MAX_THREAD_SECONDS)


AVRO: Mapping[str, Mapping[str, Any]] = {
    **{
        f"{name} that is long": {name: LONG}
        for name in ("content_id", "event_id", "source", "owner_id", "link", "title")
    },
    "a long text": {"content": ("cliptide.TextContent", {"text": LONG})},
    "an image": {"content": ("cliptide.ImageContent", {"data": bytes(LARGEST - 1000)})},
    "metadata with a long key": {"metadata": {LONG: "a"}},
    "metadata with a long text": {"metadata": {"a": LONG}},
    "metadata of many entries": {"metadata": {str(number): "a" for number in range(LARGEST // 12)}},
    "names to remove that are many": PATCH | {"remove": ["title"] * (LARGEST // 10)},
    "a long name to remove": PATCH | {"remove": [f"metadata.{LONG}"]},
}


@pytest.mark.parametrize("fields", AVRO.values(), ids=AVRO)
def test_the_largest_value_of_an_avro_field_costs_little(fields: Mapping[str, Any]) -> None:
    written, schema = io.BytesIO(), current_schema()
    datum = {"content_id": "a", "occurred_at": TIME_MS, "content": ("cliptide.TextContent", {"text": "b"})}
    fastavro.schemaless_writer(written, schema.parsed, {**datum, **fields})
    value = b"\xc3\x01" + schema.fingerprint + written.getvalue()
    assert_bounded(lambda: decode(value), len(value), MAX_THREAD_SECONDS)


@pytest.mark.parametrize("value", [b"\xff", b"\x80", b"\x00", b"\x02"], ids=bytes.hex)
def test_avro_that_claims_what_is_not_there_costs_little(value: bytes) -> None:
    record = b"\xc3\x01" + current_schema().fingerprint + value * (LARGEST // len(value))
    assert_bounded(lambda: decode(record), len(record), MAX_THREAD_SECONDS)


def test_a_long_key_and_an_unknown_format_cost_little() -> None:
    assert_bounded(lambda: decode(b"{}", key=LONG.encode()), LARGEST, MAX_THREAD_SECONDS)
    assert_bounded(lambda: decode(b"\0" * LARGEST), LARGEST, MAX_THREAD_SECONDS)
