"""Filters: how requests write them, and their conversion to the engine's `RowFilter`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clip_index.content import MetadataScalar
from clip_index.row_filter import (
    METADATA_PREFIX,
    TIME_FIELD,
    AllOf,
    AnyOf,
    Condition,
    Exists,
    InRange,
    RowFilter,
)
from query_api.contract.messages import named
from query_api.contract.models import Request
from query_api.contract.schema_rules import JsonSchema, at_least_one_of, is_given, or_null
from query_api.contract.unions import one_of_types

MAX_CONDITIONS = 32
MAX_VALUES = 256
MAX_FILTER_CHARACTERS = 64 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TESTS = ("equals", "any_of", "all_of", "exists")
_RANGE = ("gt", "gte", "lt", "lte")
_TIME: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")

FIELD_PATTERN = r"^(modality|source|owner_id|content_id|occurred_at|metadata\.[\s\S]+)$"
_UNKNOWN_FIELD = "must be one of modality, source, owner_id, content_id, occurred_at and metadata.<key>"

Text = Annotated[str, Field(max_length=4096)]
Value = Annotated[Text | bool | float, one_of_types("a text, a number, true or false")]
Bound = Annotated[float | Text, one_of_types("a number or an RFC 3339 time")]


def _say_its_tests(schema: JsonSchema) -> None:
    """Say in the schema that a condition has one test, and which values each kind of field takes."""
    text, time = {"type": "string"}, {"type": "string", "format": "date-time"}
    a_range = at_least_one_of(_RANGE)
    schema["oneOf"] = [*map(is_given, _TESTS), a_range]
    schema["anyOf"] = [
        _comparing({"enum": ["modality", "source", "owner_id", "content_id"]}, equals=text, bound=None),
        _comparing({"const": TIME_FIELD}, equals=time, bound=time),
        _comparing({"pattern": r"^metadata\.[\s\S]+$"}, equals=None, bound={"type": "number"}),
    ]


def _comparing(field: JsonSchema, *, equals: JsonSchema | None, bound: JsonSchema | None) -> JsonSchema:
    rules: JsonSchema = {"field": field}
    if equals is not None:
        several = or_null({"type": "array", "items": equals})
        rules |= {"equals": or_null(equals), "any_of": several, "all_of": several}
    rules |= dict.fromkeys(_RANGE, {"type": "null"} if bound is None else or_null(bound))
    return {"properties": rules}


def known_field(name: str) -> str:
    if not re.fullmatch(FIELD_PATTERN, name):
        own = named(name)
        meant = f"; did you mean {METADATA_PREFIX}{own}?" if own else ""
        raise PydanticCustomError("invalid_value", "{words}", {"words": _UNKNOWN_FIELD + meant})
    return name


class FieldCondition(Request):
    """One field and one test: `equals`, `any_of`, `all_of`, `exists`, or a range of one to four bounds.

    A list of texts passes `equals` and `any_of` if it holds a text that is asked for, and `all_of` if it
    holds each of them.
    """

    model_config = ConfigDict(json_schema_extra=_say_its_tests)

    field: Annotated[str, AfterValidator(known_field)] = Field(
        max_length=512,
        json_schema_extra={"pattern": FIELD_PATTERN},
        description="modality, source, owner_id, content_id, occurred_at, or metadata.<key>.",
    )
    equals: Value | None = Field(
        default=None, description='The type counts: the text "1" does not equal the number 1.'
    )
    any_of: list[Value] | None = Field(default=None, min_length=1, max_length=MAX_VALUES, fail_fast=True)
    all_of: list[Value] | None = Field(default=None, min_length=1, max_length=MAX_VALUES, fail_fast=True)
    gt: Bound | None = Field(default=None, description="A number; for occurred_at an RFC 3339 time.")
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _has_one_test(self) -> FieldCondition:
        tests = [name for name in _TESTS if getattr(self, name) is not None]
        is_range = any(getattr(self, name) is not None for name in _RANGE)
        if len(tests) + is_range != 1:
            raise PydanticCustomError(
                "invalid_value",
                "needs exactly one of equals, any_of, all_of, exists and a range (gt, gte, lt, lte)",
            )
        if is_range and self.field != TIME_FIELD and not self.field.startswith(METADATA_PREFIX):
            raise PydanticCustomError(
                "invalid_value", "has a range, but only occurred_at and numbers in metadata have ranges"
            )
        self.as_condition()
        return self

    @property
    def num_characters(self) -> int:
        texts = [
            self.equals,
            *(self.any_of or ()),
            *(self.all_of or ()),
            *(getattr(self, name) for name in _RANGE),
        ]
        return len(self.field) + sum(len(text) for text in texts if isinstance(text, str))

    def as_condition(self) -> Condition:
        if self.exists is not None:
            return Exists(self.field, self.exists)
        if self.equals is not None:
            return AnyOf(self.field, (self._comparable(self.equals),))
        if self.any_of is not None:
            return AnyOf(self.field, tuple(self._comparable(value) for value in self.any_of))
        if self.all_of is not None:
            return AllOf(self.field, tuple(self._comparable(value) for value in self.all_of))
        return InRange(self.field, **{name: self._bound(getattr(self, name)) for name in _RANGE})

    def _comparable(self, value: MetadataScalar) -> MetadataScalar:
        if self.field == TIME_FIELD:
            return _milliseconds(value)
        if not self.field.startswith(METADATA_PREFIX) and not isinstance(value, str):
            raise PydanticCustomError("invalid_value", "compares a text field with another type")
        return value

    def _bound(self, bound: float | str | None) -> float | None:
        if bound is None:
            return None
        if self.field == TIME_FIELD:
            return _milliseconds(bound)
        if isinstance(bound, str):
            raise PydanticCustomError(
                "invalid_value", "has a text as a bound; the bounds of metadata are numbers"
            )
        return bound


class Filter(Request):
    """A content passes if all of `must`, at least one of `should` (if any) and none of `must_not` apply."""

    must: list[FieldCondition] = Field(default=[], max_length=MAX_CONDITIONS, fail_fast=True)
    should: list[FieldCondition] = Field(default=[], max_length=MAX_CONDITIONS, fail_fast=True)
    must_not: list[FieldCondition] = Field(default=[], max_length=MAX_CONDITIONS, fail_fast=True)

    @model_validator(mode="after")
    def _has_a_bounded_size(self) -> Filter:
        conditions = (*self.must, *self.should, *self.must_not)
        if sum(condition.num_characters for condition in conditions) > MAX_FILTER_CHARACTERS:
            raise PydanticCustomError(
                "filter_too_large",
                "the fields and values of a filter may have {most} characters together",
                {"most": MAX_FILTER_CHARACTERS},
            )
        return self

    def as_row_filter(self) -> RowFilter | None:
        """Return the engine's filter; None if every row passes."""
        row_filter = RowFilter(
            *(tuple(c.as_condition() for c in part) for part in (self.must, self.should, self.must_not))
        )
        return None if row_filter == RowFilter() else row_filter


def filter_from_texts(texts: Mapping[str, str]) -> Filter:
    """Build the filter of a query string: each field must equal its text.

    The text of a metadata field may also stand for a number or a boolean.
    """
    return Filter(must=[FieldCondition(field=name, any_of=_readings(name, t)) for name, t in texts.items()])


def _readings(field: str, text: str) -> list[MetadataScalar]:
    readings: list[MetadataScalar] = [text]
    if field.startswith(METADATA_PREFIX):
        if text in ("true", "false"):
            readings.append(text == "true")
        if len(text) < 32 and _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
            readings.append(number)
    return readings


def _milliseconds(value: MetadataScalar) -> float:
    """Return an RFC 3339 time as milliseconds since 1970, exact to the microsecond."""
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_value", "compares a time with another type")
    try:
        time = _TIME.validate_strings(value)
    except ValidationError:
        raise PydanticCustomError("invalid_value", "needs an RFC 3339 time with a time zone") from None
    return (time - _EPOCH).total_seconds() * 1000
