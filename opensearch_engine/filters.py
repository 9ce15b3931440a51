"""Turns a filter into a query of OpenSearch that holds for the same contents. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clip_index.content import MetadataScalar, Modality
from clip_index.row_filter import (
    METADATA_PREFIX,
    TEXT_FIELDS,
    TIME_FIELD,
    AllOf,
    AnyOf,
    Condition,
    Exists,
    InRange,
    RowFilter,
)
from opensearch_engine.connection import Json
from opensearch_engine.documents import is_number, number_term, value_terms

_ALL: Json = {"match_all": {}}
_NONE: Json = {"match_none": {}}
_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1


def live_contents(modality: Modality | None = None, row_filter: RowFilter | None = None) -> Json:
    """Return what holds for the live contents that pass the filter."""
    conditions: list[Json] = [{"term": {"dead": False}}]
    if modality is not None:
        conditions.append({"term": {"modality": modality}})
    if row_filter is not None:
        conditions.append(query_from_filter(row_filter))
    return {"bool": {"filter": conditions}}


def query_from_filter(row_filter: RowFilter) -> Json:
    """Raises `ValueError` for a field that contents do not have."""
    parts: Json = {
        "filter": [_query(condition) for condition in row_filter.must],
        "must_not": [_query(condition) for condition in row_filter.must_not],
    }
    if row_filter.should:
        should = [_query(condition) for condition in row_filter.should]
        parts["filter"].append({"bool": {"should": should, "minimum_should_match": 1}})
    return {"bool": parts}


def _query(condition: Condition) -> Json:
    if isinstance(condition, AllOf):
        return {"bool": {"filter": [_query(AnyOf(condition.field, (value,))) for value in condition.values]}}
    if isinstance(condition, Exists) and not condition.is_present:
        return {"bool": {"must_not": [_query(Exists(condition.field))]}}
    field = condition.field
    if field in TEXT_FIELDS:
        return _of_text(condition)
    if field == TIME_FIELD:
        return _of_time(condition)
    if field.startswith(METADATA_PREFIX):
        return _of_metadata(field.removeprefix(METADATA_PREFIX), condition)
    raise ValueError(f"no such field: {field}")


def _of_text(condition: AnyOf | InRange | Exists) -> Json:
    if isinstance(condition, Exists):
        return {"exists": {"field": condition.field}}
    if isinstance(condition, InRange):
        return _NONE
    return _terms(condition.field, (value for value in condition.values if isinstance(value, str)))


def _of_time(condition: AnyOf | InRange | Exists) -> Json:
    if isinstance(condition, Exists):
        return _ALL
    if isinstance(condition, InRange):
        return _Bounds.of(condition).on_long("occurred_at_ms")
    times = [float(value) for value in condition.values if is_number(value) and math.isfinite(value)]  # type: ignore[arg-type]
    whole = [int(time) for time in times if time.is_integer() and _MIN_LONG <= time <= _MAX_LONG]
    return {"terms": {"occurred_at_ms": whole}} if whole else _NONE


def _of_metadata(key: str, condition: AnyOf | InRange | Exists) -> Json:
    if not _is_unicode(key):
        return _NONE
    if isinstance(condition, Exists):
        return _terms("metadata_keys", [key])
    if isinstance(condition, InRange):
        return _Bounds.of(condition).on_numbers_of(key)
    return _terms("metadata_values", (term for value in condition.values for term in _terms_of(key, value)))


def _terms_of(key: str, value: MetadataScalar) -> list[str]:
    if isinstance(value, float) and math.isnan(value):
        return []  # equals nothing
    return value_terms(key, value)


def _terms(field: str, values: Iterable[str]) -> Json:
    """A value that is no Unicode text, and so cannot be sent, equals nothing that is stored."""
    sent = [value for value in values if _is_unicode(value)]
    return {"terms": {field: sent}} if sent else _NONE


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The least and the greatest number that a range lets pass."""

    least: float
    greatest: float

    @classmethod
    def of(cls, condition: InRange) -> _Bounds:
        least = [bound for bound in (condition.gte, _after(condition.gt)) if bound is not None]
        greatest = [bound for bound in (condition.lte, _before(condition.lt)) if bound is not None]
        if any(map(math.isnan, (*least, *greatest))):
            return cls(math.inf, -math.inf)
        return cls(max(least, default=-math.inf), min(greatest, default=math.inf))

    @property
    def is_empty(self) -> bool:
        return self.least > self.greatest

    def on_long(self, field: str) -> Json:
        if self.is_empty or self.least > _MAX_LONG or self.greatest < _MIN_LONG:
            return _NONE
        least = _MIN_LONG if self.least < _MIN_LONG else math.ceil(self.least)
        greatest = _MAX_LONG if self.greatest >= _MAX_LONG else math.floor(self.greatest)
        return {"range": {field: {"gte": least, "lte": greatest}}} if least <= greatest else _NONE

    def on_numbers_of(self, key: str) -> Json:
        if self.is_empty:
            return _NONE
        bounds = {"gte": number_term(key, self.least), "lte": number_term(key, self.greatest)}
        return {"range": {"metadata_numbers": bounds}}


def _after(bound: float | None) -> float | None:
    return None if bound is None else _next(float(bound), math.inf)


def _before(bound: float | None) -> float | None:
    return None if bound is None else _next(float(bound), -math.inf)


def _next(number: float, towards: float) -> float:
    """The neighbouring double; NaN, which no number keeps, where there is none."""
    return math.nan if number == towards else math.nextafter(number, towards)
