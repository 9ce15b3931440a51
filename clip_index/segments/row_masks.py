"""Evaluates filters on the mapped columns of a segment: vectorised, and each filter once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.content import MetadataScalar
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
    SimpleCondition,
)
from clip_index.storage.bounded_cache import BoundedCache

Mask: TypeAlias = NDArray[np.bool_]

_NUM_CACHED_MASKS = 32
_NUM_CACHED_KEYS = 32


@dataclass(frozen=True, slots=True)
class _KeyPositions:
    """One metadata key in a map column: the positions of its items, and their rows, both (n,).

    `rows` is None if every row has the key. `numbers` are the items' values, if they are numbers.
    """

    items: NDArray[np.int64]
    rows: NDArray[np.int64] | None
    numbers: NDArray[np.float64] | None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.items, self.rows, self.numbers) if array is not None)

    def scatter(self, of_items: Mask, num_rows: int) -> Mask:
        """Turn a mask of items into a mask of rows."""
        if self.rows is None:
            return of_items
        mask = np.zeros(num_rows, np.bool_)
        mask[self.rows] = of_items
        return mask


class RowMasks:
    """The masks of one segment's rows, and the positions of its metadata keys. Thread-safe."""

    def __init__(self, columns: pa.RecordBatch) -> None:
        self._columns = columns
        self._masks: BoundedCache[str, Mask] = BoundedCache(
            _NUM_CACHED_MASKS, size_of=lambda mask: mask.nbytes
        )
        self._key_positions: BoundedCache[str, _KeyPositions] = BoundedCache(
            _NUM_CACHED_KEYS, size_of=lambda positions: positions.nbytes
        )

    def find(self, row_filter: RowFilter) -> Mask:
        """Return a mask (rows,) that is True where the filter holds. Callers must not change it.

        Raises `ValueError` for a field that rows do not have.
        """
        return self._masks.find_or_build(row_filter.key, lambda: self._build(row_filter))

    def _build(self, row_filter: RowFilter) -> Mask:
        mask = np.ones(self._columns.num_rows, np.bool_)
        for condition in row_filter.must:
            mask &= self._condition_mask(condition)
        if row_filter.should:
            mask &= _any([self._condition_mask(condition) for condition in row_filter.should])
        for condition in row_filter.must_not:
            mask &= ~self._condition_mask(condition)
        return mask

    def _condition_mask(self, condition: Condition) -> Mask:
        mask = self._field_mask(condition)
        return ~mask if isinstance(condition, Exists) and not condition.is_present else mask

    def _field_mask(self, condition: Condition) -> Mask:
        """Evaluate a condition. For `Exists`, return which rows have a value."""
        field = condition.field
        if isinstance(condition, AllOf):
            return _all([self._field_mask(AnyOf(field, (value,))) for value in condition.values])
        if field in TEXT_FIELDS:
            return _text_mask(self._columns.column(field), condition)
        if field == TIME_FIELD:
            return _number_mask(self._columns.column("occurred_at_ms").to_numpy(), condition)
        if field.startswith(METADATA_PREFIX):
            return self._metadata_mask(field.removeprefix(METADATA_PREFIX), condition)
        raise ValueError(f"no such field: {field}")

    def _metadata_mask(self, key: str, condition: SimpleCondition) -> Mask:
        """A row has a key in one map at most, in that of its value's type."""
        mask = np.zeros(self._columns.num_rows, np.bool_)
        for name, is_wanted in _METADATA_COLUMNS.items():
            column = self._columns.column(name)
            if is_wanted(condition) and len(column.items):
                positions = self._key_positions.find_or_build(
                    f"{name} {key}", partial(_find_key, column, key)
                )
                mask |= positions.scatter(_items_mask(column.items, positions, condition), len(mask))
        return mask


def _find_key(column: pa.MapArray, key: str) -> _KeyPositions:
    items = np.flatnonzero(_equals_text(column.keys, [key]))
    row_of_item = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
    rows = row_of_item[items - column.offsets[0].as_py()]
    numbers = column.items.to_numpy()[items] if pa.types.is_floating(column.items.type) else None
    return _KeyPositions(items, rows if len(rows) < len(column) else None, numbers)


def _any(masks: Sequence[Mask]) -> Mask:
    return reduce(np.logical_or, masks)


def _all(masks: Sequence[Mask]) -> Mask:
    return reduce(np.logical_and, masks)


def _text_mask(column: pa.Array, condition: SimpleCondition) -> Mask:
    if isinstance(condition, Exists):
        return _as_mask(pc.is_valid(column))
    if isinstance(condition, InRange):
        return np.zeros(len(column), np.bool_)
    return _equals_text(column, [value for value in condition.values if isinstance(value, str)])


def _equals_text(column: pa.Array, values: Sequence[str]) -> Mask:
    if len(values) == 1:
        return _as_mask(pc.fill_null(pc.equal(column, pa.scalar(values[0], column.type)), False))
    return _as_mask(pc.is_in(column, value_set=pa.array(values, column.type)))


def _number_mask(numbers: NDArray[Any], condition: SimpleCondition) -> Mask:
    if isinstance(condition, Exists):
        return np.ones(len(numbers), np.bool_)
    if isinstance(condition, AnyOf):
        return np.isin(numbers, np.array([v for v in condition.values if _is_number(v)], np.float64))
    mask = np.ones(len(numbers), np.bool_)
    for compare, bound in (
        (np.greater, condition.gt),
        (np.greater_equal, condition.gte),
        (np.less, condition.lt),
        (np.less_equal, condition.lte),
    ):
        if bound is not None:
            mask &= compare(numbers, bound)
    return mask


def _items_mask(items: pa.Array, positions: _KeyPositions, condition: SimpleCondition) -> Mask:
    """Evaluate a condition on the items of one key: a mask (n,)."""
    if isinstance(condition, Exists):
        return np.ones(len(positions.items), np.bool_)
    if positions.numbers is not None:
        return _number_mask(positions.numbers, condition)
    if pa.types.is_string(items.type):
        return _text_mask(items.take(pa.array(positions.items)), condition)
    if pa.types.is_list(items.type):
        return _lists_mask(items.take(pa.array(positions.items)), condition)
    wanted = condition.values if isinstance(condition, AnyOf) else ()
    return np.isin(_as_mask(items)[positions.items], [value for value in wanted if isinstance(value, bool)])


def _lists_mask(lists: pa.ListArray, condition: SimpleCondition) -> Mask:
    """Return which lists hold a text that meets the condition: a mask (n,)."""
    mask = np.zeros(len(lists), np.bool_)
    list_of_text = np.asarray(pc.list_parent_indices(lists))
    mask[list_of_text[_text_mask(pc.list_flatten(lists), condition)]] = True
    return mask


def _is_number(value: MetadataScalar) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(condition: SimpleCondition, is_of_type: Callable[[MetadataScalar], bool]) -> bool:
    """Whether a value of some type can meet the condition."""
    return isinstance(condition, Exists) or (
        isinstance(condition, AnyOf) and any(map(is_of_type, condition.values))
    )


_METADATA_COLUMNS: Mapping[str, Callable[[SimpleCondition], bool]] = MappingProxyType(
    {
        "metadata_text": lambda c: _names(c, lambda value: isinstance(value, str)),
        "metadata_number": lambda c: isinstance(c, InRange) or _names(c, _is_number),
        "metadata_boolean": lambda c: _names(c, lambda value: isinstance(value, bool)),
        "metadata_texts": lambda c: _names(c, lambda value: isinstance(value, str)),
    }
)


def _as_mask(array: pa.BooleanArray) -> Mask:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)
