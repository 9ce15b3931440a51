"""Finds the values that a mapping takes from a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote_plus

from jsonpointer import JsonPointer

from schemas.mapping.model import Value

ABSENT: Final = object()
"""What is found where nothing is. A JSON null is there, and is None."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_DIGITS = re.compile(r"-?[0-9]{1,19}")
_PER_MILLISECOND = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_MS_PER_SECOND = 1000


class NotThere(Exception):
    """A value that a rule takes is not there, or is of no use. Quotes nothing of the record."""

    def __init__(self, target: str, detail: str) -> None:
        super().__init__(f"{target}: {detail}")


class LeftOut(NotThere):
    """The platform wrote its placeholder: the value exists, but not in this record."""

    def __init__(self, target: str, detail: str) -> None:
        super().__init__(target, f"{detail} has the placeholder of a value that the platform left out")


@dataclass(frozen=True, slots=True)
class ForeignRecord:
    """A record, and its value as JSON; `document` is `ABSENT` if the value is not JSON."""

    key: bytes | None
    value: bytes
    document: Any
    headers: Sequence[tuple[str, bytes | None]]
    placeholder: str | None = None

    def header(self, name: str) -> Any:
        """Return the text of the last header of this name, or `ABSENT`. Case does not count."""
        found = [value for header, value in self.headers if header.lower() == name.lower()]
        if not found or found[-1] is None:
            return ABSENT
        return found[-1].decode("utf-8", "replace")


def resolve(document: Any, pointer: str) -> Any:
    """Return what lies at a JSON pointer, or `ABSENT`.

    Not jsonpointer's own walk: where nothing lies, it writes the whole document into an error message. That
    takes long for a large one and is too deep for Python for a deep one.
    """
    for part in _parts(pointer):
        if isinstance(document, dict):
            document = document.get(part, ABSENT)
        elif isinstance(document, list) and _INDEX.fullmatch(part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return ABSENT
    return document


@lru_cache(maxsize=1024)
def _parts(pointer: str) -> tuple[str, ...]:
    return tuple(JsonPointer(pointer).parts)


def find_value(spec: Value, record: ForeignRecord, target: str) -> Any:
    """Return the value for a field of the event; None if it is optional and not there.

    `target` names the field in the `NotThere` that is raised otherwise.
    """
    found = _source(spec, record, target)
    check_placeholder(found, record, target, _describe(spec))
    if spec.optional and found == "" and target in _NEVER_EMPTY:
        return None
    if found is ABSENT or found is None:
        if spec.optional:
            return None
        raise NotThere(target, f"{_describe(spec)} is not there")
    return _convert(found, spec, target)


def check_placeholder(found: Any, record: ForeignRecord, target: str, where: str) -> None:
    """Raise `LeftOut` if a value is the placeholder, or is a list that holds it."""
    items = found if isinstance(found, list) else (found,)
    if record.placeholder is not None and record.placeholder in items:
        raise LeftOut(target, where)


def _source(spec: Value, record: ForeignRecord, target: str) -> Any:
    if spec.pointer is not None:
        return resolve(record.document, spec.pointer)
    if spec.header is not None:
        return record.header(spec.header)
    if spec.key is not None:
        return _key_text(record.key, target)
    if spec.template is not None:
        return _fill(spec, record, target)
    if spec.first_of is not None:
        return _first(spec.first_of, record, target)
    return spec.const


def _key_text(key: bytes | None, target: str) -> Any:
    if key is None:
        return ABSENT
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise NotThere(target, "the record's key is not UTF-8") from None


def _fill(spec: Value, record: ForeignRecord, target: str) -> Any:
    """Fill a template. If an optional part is not there, the whole is not there."""
    parts = {name: find_value(part, record, f"{target}.{name}") for name, part in spec.parts.items()}
    if any(part is None for part in parts.values()):
        return ABSENT
    return str(spec.template).format_map({name: _text(part) for name, part in parts.items()})


def _first(specs: Sequence[Value], record: ForeignRecord, target: str) -> Any:
    for spec in specs:
        try:
            found = find_value(spec, record, target)
        except LeftOut:
            raise
        except NotThere:
            continue
        if found is not None:
            return found
    return ABSENT


def _convert(found: Any, spec: Value, target: str) -> Any:
    if spec.decode == "url":
        found = _url_decoded(_text(found), target)
    if spec.unit is not None:
        found = _milliseconds(found, spec.unit, target)
    if spec.table is not None:
        if _text(found) not in spec.table:
            raise NotThere(target, f"the table has no entry for what {_describe(spec)} is")
        found = spec.table[_text(found)]
    if spec.encode == "url":
        found = _url_encoded(_text(found), target)
    return _as_field(found, target)


def _url_decoded(text: str, target: str) -> str:
    """Decode strictly. With replacement characters, two keys could become one content id."""
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise NotThere(target, "its URL encoding is not UTF-8") from None


def _url_encoded(text: str, target: str) -> str:
    try:
        return quote(text)
    except UnicodeEncodeError:
        raise NotThere(target, "holds a lone surrogate") from None


def _milliseconds(found: Any, unit: str, target: str) -> int:
    try:
        if unit == "s":
            return round(float(found) * _MS_PER_SECOND)
        return int(found) // _PER_MILLISECOND[unit]
    except (TypeError, ValueError, OverflowError):
        raise NotThere(target, "not a number, but has a unit") from None


_TEXT_FIELDS = frozenset({"content_id", "event_id", "source", "owner_id", "link", "title", "content.text"})


_INTEGER_FIELDS = frozenset({"version", "content.reference.size_bytes"})

_NEVER_EMPTY = (_TEXT_FIELDS - {"content.text"}) | {"content.reference.etag", "content.reference.sha256"}
"""What an event leaves out instead. Databases and stores often write an empty text for what is not known."""


def _as_field(found: Any, target: str) -> Any:
    """Write a number as a text where the event has a text, and the other way round.

    Databases have numbers for ids, and some services write large integers as texts.
    """
    if target in _INTEGER_FIELDS and isinstance(found, str) and _DIGITS.fullmatch(found):
        return int(found)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    return _text(found) if is_number and target in _TEXT_FIELDS else found


def _text(found: Any) -> str:
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(int(found)) if isinstance(found, float) and found.is_integer() else str(found)


def _describe(spec: Value) -> str:
    if spec.pointer is not None:
        return spec.pointer or "the value"
    if spec.header is not None:
        return f"header {spec.header}"
    if spec.first_of is not None:
        return "each of " + ", ".join(map(_describe, spec.first_of))
    return "the key" if spec.key is not None else "a part of the template"
