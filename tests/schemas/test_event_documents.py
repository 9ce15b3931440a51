"""The JSON Schema and the AsyncAPI document say of events what the code does with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from jsonschema import Draft202012Validator

from fakes.sample_events import NOON_MS, events
from schemas.errors import BadEvent
from schemas.events import Event
from schemas.json_format import event_from_json, json_from_event
from schemas.validation import validate_event
from service.sections import DEFAULT_DEAD_LETTER_TOPIC, DEFAULT_TOPIC
from tests.schemas.test_json_format import BAD_FIELDS
from tools.event_documents import ASYNC_API, JSON_SCHEMA, build_async_api, build_json_schema
from tools.release_schema import GOLDEN

VALIDATOR = Draft202012Validator(
    json.loads(JSON_SCHEMA.read_text("utf-8")), format_checker=Draft202012Validator.FORMAT_CHECKER
)
GOLDEN_JSON = sorted(path.name for path in GOLDEN.glob("*-json-*.bin"))
MINIMAL = {"content_id": "shoe-1", "content": {"text": "a red shoe"}}
BEYOND_JSON_SCHEMA = {
    "content id of another content",
    "content id with a lone surrogate",
    "title with a lone surrogate",
    "lists of too many bytes",
    "version a fraction",
    "occurred at before the year one",
    "image not base64",
    "image of a data URL in another encoding",
    "image base64 of five digits",
    "image not ASCII",
    "metadata not a number",
    "metadata infinite",
    "metadata an id that no double holds",
    "metadata beyond every double",
}
"""What JSON Schema cannot say: keys, bytes of UTF-8, base64, how a number is written."""


def is_accepted(document: object) -> bool:
    try:
        validate_event(event_from_json(document, timestamp_ms=NOON_MS))
    except BadEvent:
        return False
    return True


def test_both_documents_are_those_that_the_code_builds() -> None:
    remedy = "run python -m tools.write_generated"
    assert JSON_SCHEMA.read_text("utf-8") == build_json_schema(), remedy
    assert ASYNC_API.read_text("utf-8") == build_async_api(), remedy


def test_the_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("name", GOLDEN_JSON)
def test_a_golden_event_is_valid(name: str) -> None:
    VALIDATOR.validate(json.loads((GOLDEN / name).read_bytes()))


@given(events)
def test_every_event_that_the_code_writes_is_valid(event: Event) -> None:
    document = json_from_event(event)
    if is_accepted(document):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "fields",
    [
        {"content": {"text": "a red shoe", "image": None}},
        {"content": {"reference": {"uri": "s3://a/b", "modality": "text"}}},
        {"metadata": None, "title": None, "version": None, "operation": None},
        {"title": "", "metadata": {"tags": [], "gone": None}},
        {"operation": "delete", "content": "whatever stands here"},
        {"field of a later release": {"a": [1]}},
        {"occurred_at": 1_772_368_215_250},
    ],
    ids=str,
)
def test_what_the_reader_accepts_is_valid(fields: dict[str, Any]) -> None:
    assert is_accepted(MINIMAL | fields)
    VALIDATOR.validate(MINIMAL | fields)


@pytest.mark.parametrize("name", sorted(BAD_FIELDS.keys() - BEYOND_JSON_SCHEMA))
def test_what_the_reader_refuses_is_invalid(name: str) -> None:
    _, fields = BAD_FIELDS[name]
    assert not VALIDATOR.is_valid(MINIMAL | fields)


def test_what_the_schema_cannot_say_is_what_is_listed() -> None:
    valid = {name for name, (_, fields) in BAD_FIELDS.items() if VALIDATOR.is_valid(MINIMAL | fields)}
    assert valid == BEYOND_JSON_SCHEMA


def test_the_topics_of_the_asyncapi_document_are_the_default_ones() -> None:
    channels = yaml.safe_load(ASYNC_API.read_text("utf-8"))["channels"].values()
    assert [channel["address"] for channel in channels] == [DEFAULT_TOPIC, DEFAULT_DEAD_LETTER_TOPIC]
