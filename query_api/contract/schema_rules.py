"""Rules between fields, as JSON schema for the OpenAPI document. The models' validators enforce them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

JsonSchema: TypeAlias = dict[str, Any]

# Each character that `str.strip` removes. Not `\s`: it differs between dialects of patterns.
BLANKS = r"\t-\r\x1C-\x20\x85\xA0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"
NOT_BLANK: JsonSchema = {"pattern": f"[^{BLANKS}]"}

# The defaults of fields whose default a factory makes. pydantic copies a default that is a list or a
# dictionary for every request, and the copies took a quarter of the time in which a search is parsed.
EMPTY_LIST: JsonSchema = {"default": []}
EMPTY_MAP: JsonSchema = {"default": {}}


def is_given(name: str) -> JsonSchema:
    """The field is present and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def exactly_one_of(names: Iterable[str]) -> JsonSchema:
    return {"oneOf": [is_given(name) for name in names]}


def at_least_one_of(names: Iterable[str]) -> JsonSchema:
    return {"anyOf": [is_given(name) for name in names]}


def alone_with(name: str, companions: Iterable[str]) -> JsonSchema:
    """The field is given, and beside it only the companions may be."""
    return is_given(name) | {
        "properties": {name: {"not": {"type": "null"}}, **dict.fromkeys(companions, True)},
        "additionalProperties": False,
    }


def or_null(schema: JsonSchema) -> JsonSchema:
    return {"anyOf": [schema, {"type": "null"}]}
