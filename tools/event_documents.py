"""The contract of events as JSON Schema and as AsyncAPI, built from the .avsc file and the reader's rules.

`schemas/upload_event.schema.json` describes an event as JSON. `schemas/asyncapi.yaml` describes the topics.
Neither can say everything: limits are in bytes of UTF-8, and JSON Schema counts characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import yaml

from schemas.dead_letters import REASON_HEADER
from schemas.validation import (
    EARLIEST,
    END_OF_TIME,
    INT64_MAX,
    INT64_MIN,
    MAX_ETAG_BYTES,
    MAX_ID_BYTES,
    MAX_LINK_BYTES,
    MAX_LIST_TEXTS,
    MAX_METADATA_ENTRIES,
    MAX_METADATA_KEY_BYTES,
    MAX_REMOVED,
    MAX_TITLE_CHARACTERS,
    METADATA_PREFIX,
)
from service.sections import DEFAULT_DEAD_LETTER_TOPIC, DEFAULT_TOPIC

VERSION = "1.2"
SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
JSON_SCHEMA = SCHEMAS / "upload_event.schema.json"
ASYNC_API = SCHEMAS / "asyncapi.yaml"

JsonSchema: TypeAlias = dict[str, Any]

_INT64 = {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX}
_NOT_BLANK = {"type": "string", "pattern": r"\S"}
_MS_PER_SECOND = 1000


def build_json_schema() -> str:
    """Return the text of `upload_event.schema.json`."""
    avro = json.loads((SCHEMAS / "upload_event.avsc").read_text("utf-8"))
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cliptide:upload-event:{VERSION}",
        "title": avro["name"],
        "description": avro["doc"],
        "type": "object",
        "properties": {field["name"]: _property(field) for field in avro["fields"]},
        "required": ["content_id"],
        "allOf": [
            {"if": _operation_is("patch"), "then": _patch()},
            {
                "if": {"not": {"anyOf": [_operation_is("delete"), _operation_is("patch")]}},
                "then": {"required": ["content"], "properties": {"content": _content()}},
            },
        ],
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _operation_is(operation: str) -> JsonSchema:
    return {"properties": {"operation": {"const": operation}}, "required": ["operation"]}


def _patch() -> JsonSchema:
    """A patch changes something, and has neither a content nor a version."""
    changes: Mapping[str, JsonSchema] = {
        "title": {"type": "string"},
        "link": {"type": "string"},
        "metadata": {"type": "object", "minProperties": 1},
        "remove": {"type": "array", "minItems": 1},
    }
    return {
        "properties": {"content": {"type": "null"}, "version": {"type": "null"}},
        "anyOf": [{"required": [name], "properties": {name: schema}} for name, schema in changes.items()],
    }


def build_async_api() -> str:
    """Return the text of `asyncapi.yaml`."""
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "cliptide: content uploads",
            "version": VERSION,
            "description": "What a platform publishes, and what becomes of records that cannot be indexed. "
            "README.md beside this file has the rules, and the Avro encoding of the same events.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {"uploads": _uploads_channel(), "deadLetters": _dead_letters_channel()},
        "operations": {
            "receiveUploads": _operation(
                "receive", "uploads", "The consumer indexes uploads, patches and deletes."
            ),
            "sendDeadLetters": _operation("send", "deadLetters", "The consumer sets a record aside."),
        },
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))


def write_documents() -> None:
    JSON_SCHEMA.write_text(build_json_schema(), "utf-8")
    ASYNC_API.write_text(build_async_api(), "utf-8")


def _property(field: Mapping[str, Any]) -> JsonSchema:
    if field["name"] == "content":  # a delete may have anything there, so `allOf` has its schema
        return {"description": field["doc"]}
    schema = _PROPERTIES[field["name"]]()
    if "default" in field:
        schema = {"anyOf": [schema, {"type": "null"}]}
    described = {"description": field["doc"], **schema}
    return described | ({"default": field["default"]} if "default" in field else {})


def _text(maximum: int, minimum: int = 0) -> Callable[[], JsonSchema]:
    return lambda: {"type": "string", "minLength": minimum, "maxLength": maximum}


def _occurred_at() -> JsonSchema:
    first, last = (round(time.timestamp() * _MS_PER_SECOND) for time in (EARLIEST, END_OF_TIME))
    return {
        "oneOf": [
            {"type": "string", "format": "date-time"},
            {"type": "integer", "minimum": first, "exclusiveMaximum": last},
            {"type": "null"},
        ]
    }


def _content() -> JsonSchema:
    branches = {
        "text": _NOT_BLANK,
        "image": {"type": "string", "minLength": 1, "contentEncoding": "base64"},
        "reference": _reference(),
    }
    others = {name: {other: {"type": "null"} for other in branches if other != name} for name in branches}
    return {
        "oneOf": [
            {"type": "object", "required": [name], "properties": {name: branch, **others[name]}}
            for name, branch in branches.items()
        ]
    }


def _reference() -> JsonSchema:
    return {
        "type": "object",
        "required": ["uri", "modality"],
        "properties": {
            "uri": {"type": "string", "pattern": "://", "maxLength": MAX_LINK_BYTES},
            "modality": {"enum": ["text", "image"]},
            "sha256": {"type": ["string", "null"], "pattern": "^[0-9a-fA-F]{64}$"},
            "size_bytes": {"type": ["integer", "null"], "minimum": 1, "maximum": INT64_MAX},
            "etag": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_ETAG_BYTES},
        },
    }


def _remove() -> JsonSchema:
    name = {"type": "string", "pattern": f"^(title|link|metadata|{re.escape(METADATA_PREFIX)}[\\s\\S]+)$"}
    return {"type": "array", "items": name, "maxItems": MAX_REMOVED}


def _metadata() -> JsonSchema:
    texts = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_LIST_TEXTS}
    return {
        "type": "object",
        "maxProperties": MAX_METADATA_ENTRIES,
        "propertyNames": {"minLength": 1, "maxLength": MAX_METADATA_KEY_BYTES},
        "additionalProperties": {"anyOf": [{"type": ["string", "number", "boolean", "null"]}, texts]},
    }


_PROPERTIES: Mapping[str, Callable[[], JsonSchema]] = MappingProxyType(
    {
        "content_id": _text(MAX_ID_BYTES, 1),
        "occurred_at": _occurred_at,
        "operation": lambda: {"enum": ["upsert", "delete", "patch"]},
        "version": lambda: dict(_INT64),
        "event_id": _text(MAX_ID_BYTES),
        "source": _text(MAX_ID_BYTES),
        "owner_id": _text(MAX_ID_BYTES, 1),
        "link": _text(MAX_LINK_BYTES, 1),
        "metadata": _metadata,
        "title": _text(MAX_TITLE_CHARACTERS),
        "remove": _remove,
    }
)


def _uploads_channel() -> JsonSchema:
    return {
        "address": DEFAULT_TOPIC,
        "description": "Partitioned by murmur2 of the key, as Java's client does.",
        "messages": {
            "uploadEvent": {
                "contentType": "application/json",
                "payload": {"$ref": f"./{JSON_SCHEMA.name}"},
                "bindings": {"kafka": {"key": _text(MAX_ID_BYTES, 1)()}},
            }
        },
    }


def _dead_letters_channel() -> JsonSchema:
    headers = {
        "type": "object",
        "required": [REASON_HEADER],
        "properties": {REASON_HEADER: {"type": "string", "description": "A stable code."}},
    }
    return {
        "address": DEFAULT_DEAD_LETTER_TOPIC,
        "description": "Records that cannot become contents, as they were, with Kafka Connect's headers.",
        "messages": {"deadLetter": {"contentType": "application/octet-stream", "headers": headers}},
    }


def _operation(action: str, channel: str, summary: str) -> JsonSchema:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
