"""Counting the values of contents that were read. Pure: no index is known here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from clip_index.content import MetadataScalar, StoredContent
from clip_index.row_filter import METADATA_PREFIX, TIME_FIELD
from query_api.answers.snapshot import rfc_time
from query_api.contents.facet_models import Facet, FacetRange, FacetValueCount

MAX_METADATA_FIELDS = 24  # shown by default, the most frequent ones

_Fields: TypeAlias = dict[str, list[MetadataScalar]]


def count_facets(
    contents: Iterable[StoredContent], fields: Sequence[str] | None, max_values: int
) -> dict[str, Facet]:
    """Return a facet of each field that occurs; without `fields`, of those that most contents have.

    A list of texts counts for each of its texts.
    """
    values: _Fields = {}
    for content in contents:
        for field, value in _values_of(content):
            if fields is None or field in fields:
                values.setdefault(field, []).append(value)
    shown = _frequent(values) if fields is None else values
    return {field: _facet_of(field, some, max_values) for field, some in shown.items()}


def _values_of(content: StoredContent) -> Iterator[tuple[str, MetadataScalar]]:
    facts = content.facts
    yield "modality", content.modality
    if facts.source:
        yield "source", facts.source
    if facts.owner_id is not None:
        yield "owner_id", facts.owner_id
    yield "content_id", content.content_id
    yield TIME_FIELD, facts.occurred_at_ms
    for key, value in facts.metadata.items():
        for one in dict.fromkeys(value) if isinstance(value, tuple) else (value,):
            yield METADATA_PREFIX + key, one


def _frequent(values: _Fields) -> _Fields:
    """Leave out content ids, which are all different, and the rarer keys of metadata."""
    metadata = [field for field in values if field.startswith(METADATA_PREFIX)]
    shown = set(sorted(metadata, key=lambda field: (-len(values[field]), field))[:MAX_METADATA_FIELDS])
    others = set(values) - set(metadata) - {"content_id"}
    return {field: some for field, some in values.items() if field in shown | others}


def _facet_of(field: str, values: Sequence[MetadataScalar], max_values: int) -> Facet:
    """Return the range of numbers if a field has any; else how often its texts and truth values occur."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers:
        return Facet(range=_range_of(field, numbers))
    counted = Counter((isinstance(value, bool), value) for value in values)
    best = sorted(counted.items(), key=lambda pair: (-pair[1], str(pair[0][1])))[:max_values]
    shown = [FacetValueCount(value=_shown(value), count=count) for (_, value), count in best]
    return Facet(values=shown, num_values=len(counted))


def _range_of(field: str, numbers: Sequence[float]) -> FacetRange:
    least, greatest = min(numbers), max(numbers)
    if field == TIME_FIELD:
        return FacetRange(min=rfc_time(int(least)), max=rfc_time(int(greatest)))
    return FacetRange(min=least, max=greatest)


def _shown(value: MetadataScalar) -> str | bool:
    return value if isinstance(value, bool) else str(value)
