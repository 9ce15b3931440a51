"""Says which fields of a request no content has. Such a filter finds nothing, and a reader wonders why."""

from __future__ import annotations

from collections.abc import Iterable

from clip_index.row_filter import METADATA_PREFIX
from query_api.contract.filters import Filter
from query_api.serving.engine import Snapshot


def fields_of(wanted: Filter | None) -> list[str]:
    """Return the fields that a filter names, each once."""
    if wanted is None:
        return []
    conditions = (*wanted.must, *wanted.should, *wanted.must_not)
    return list(dict.fromkeys(condition.field for condition in conditions))


def unknown_fields(searcher: Snapshot, fields: Iterable[str]) -> list[str]:
    """Return those fields of metadata that no live content has. Blocking."""
    return [field for field in fields if field.startswith(METADATA_PREFIX) and not searcher.has_field(field)]
