"""Evaluates filters on the mapped columns of a segment: vectorised, and each filter once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.content import MetadataScalar
from clip_index.masks.condition_masks import (
    Mask,
    all_of,
    any_of,
    as_mask,
    equals_text,
    is_number,
    lists_mask,
    number_mask,
    text_mask,
    texts_wanted,
    whole_bounds,
)
from clip_index.masks.ordered_numbers import OrderedNumbers, order_numbers
from clip_index.masks.ordered_texts import OrderedTexts, order_texts
from clip_index.masks.time_blocks import TimeBlocks
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

_FEW_PART = 8
"""Up to an eighth of the rows are few. More rows cost as much as a mask of all."""

_MIN_ORDERED_ROWS = 4096
"""Smaller segments are soon merged, and a look at all of their rows takes no longer than a look-up."""

_NUMBERS = "metadata_number"
_ORDERED_FIELDS = frozenset({"source", "owner_id"})
_NUM_CACHED_MASKS = 32
_NUM_CACHED_KEYS = 32
_MAX_KNOWN_KEYS = 10_000  # of one map column; a segment with more is searched for every key


@dataclass(frozen=True, slots=True)
class _KeyPositions:
    """One metadata key in a map column: the positions of its items, and their rows, both (n,).

    `rows` is None if every row has the key. `ordered` are the items' values, if they are numbers or texts of
    a segment that is large enough.
    """

    items: NDArray[np.int64]
    rows: NDArray[np.int64] | None
    numbers: NDArray[np.float64] | None
    ordered: OrderedNumbers | OrderedTexts | None

    @property
    def nbytes(self) -> int:
        parts = (self.items, self.rows, self.numbers, self.ordered)
        return sum(part.nbytes for part in parts if part is not None)

    def scatter(self, of_items: Mask, num_rows: int) -> Mask:
        """Turn a mask of items into a mask of rows."""
        if self.rows is None:
            return of_items
        mask = np.zeros(num_rows, np.bool_)
        mask[self.rows] = of_items
        return mask


class RowMasks:
    """The masks of one segment's rows, and the positions of its metadata keys. Thread-safe."""

    def __init__(self, columns: pa.RecordBatch, min_ordered_rows: int = _MIN_ORDERED_ROWS) -> None:
        """Values of fewer rows than `min_ordered_rows` are not put in order."""
        self._columns = columns
        self.num_rows = int(columns.num_rows)
        self.has_orders = columns.num_rows >= min_ordered_rows
        """Whether values are put in order."""
        self._masks: BoundedCache[str, NDArray[np.uint8]] = BoundedCache(
            _NUM_CACHED_MASKS, size_of=lambda bits: bits.nbytes
        )
        self._texts: BoundedCache[str, OrderedTexts] = BoundedCache(
            _NUM_CACHED_KEYS, size_of=lambda texts: texts.nbytes
        )
        self._key_positions: BoundedCache[str, _KeyPositions] = BoundedCache(
            _NUM_CACHED_KEYS, size_of=lambda positions: positions.nbytes
        )

    def find(self, row_filter: RowFilter) -> Mask:
        """Return a mask (rows,) that is True where the filter holds.

        Raises `ValueError` for a field that rows do not have. Masks are kept as bits. As bytes each would
        take fresh pages of memory, and to get these takes as long as to evaluate a filter.
        """
        bits = self._masks.find(row_filter.key)
        if bits is not None:
            return np.unpackbits(bits, count=self.num_rows).view(np.bool_)
        mask = self._build(row_filter)
        self._masks.keep(row_filter.key, np.packbits(mask))
        return mask

    def find_few(self, row_filter: RowFilter) -> NDArray[np.int64] | None:
        """Return the rows where the filter holds, ascending, if an order of values leads to few of them.

        None if no condition of `must` has such an order, or if too many rows meet those that have. A mask
        costs as much as the segment is long; this costs as much as the rows are many.
        """
        if not self.has_orders:
            return None
        most = self.num_rows // _FEW_PART
        if len(row_filter.must) == 1 and not row_filter.should and not row_filter.must_not:
            return self._rows_by_order(row_filter.must[0], most)
        found = [self._rows_by_order(condition, most) for condition in row_filter.must]
        few = [(len(rows), place, rows) for place, rows in enumerate(found) if rows is not None]
        if not few:
            return None
        _, place, rows = min(few, key=lambda one: one[:2])
        others = row_filter.must[:place] + row_filter.must[place + 1 :]
        rest = RowFilter(others, row_filter.should, row_filter.must_not)
        return rows[self._at(rows, rest)._build(rest)]

    def _at(self, rows: NDArray[np.int64], row_filter: RowFilter) -> RowMasks:
        """Return the masks of some rows alone, with the columns that the filter reads."""
        conditions = (*row_filter.must, *row_filter.should, *row_filter.must_not)
        names = {name for condition in conditions for name in _columns_of(condition.field)}
        wanted, indices = [n for n in self._columns.schema.names if n in names], pa.array(rows)
        arrays = [self._columns.column(name).take(indices) for name in wanted]
        return RowMasks(pa.RecordBatch.from_arrays(arrays, names=wanted), len(rows) + 1)

    def _rows_by_order(self, condition: Condition, most: int) -> NDArray[np.int64] | None:
        """Return the rows that meet a condition, if there is an order that tells that they are few."""
        field = condition.field
        if isinstance(condition, InRange) and field == TIME_FIELD:
            return self._rows_by_time(condition, most)
        if isinstance(condition, (AllOf, Exists)):
            return None
        if field in _ORDERED_FIELDS:
            return self._texts_of(field).rows_with(texts_wanted(condition), most)
        if not field.startswith(METADATA_PREFIX):
            return None
        return self._rows_by_value(field.removeprefix(METADATA_PREFIX), condition, most)

    def _rows_by_value(self, key: str, condition: InRange | AnyOf, most: int) -> NDArray[np.int64] | None:
        """Return the rows whose value of a metadata key meets a condition, or None.

        A row has a key in one map at most, so the rows of two maps differ.
        """
        if isinstance(condition, InRange):  # only numbers are within a range
            ordered = self.numbers_of(key)
            if ordered is not None:
                return ordered.rows_within(condition, most)
        parts = []
        for name in self._metadata:
            if not (_METADATA_COLUMNS[name](condition) and self._may_have(name, key)):
                continue
            positions = self._positions_of(name, key)
            if not len(positions.items):
                continue
            rows = _ordered_rows(positions.ordered, condition, most)
            if rows is None:
                return None
            parts.append(rows)
        if len(parts) == 1:
            return parts[0]
        rows = np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
        return rows if len(rows) <= most else None

    def _texts_of(self, field: str) -> OrderedTexts:
        column = self._columns.column(field)
        return self._texts.find_or_build(field, lambda: order_texts(column, None))

    def _rows_by_time(self, condition: InRange, most: int) -> NDArray[np.int64] | None:
        bounds = whole_bounds(condition)
        return None if bounds is None else self.time_blocks.rows_within(*bounds, most)

    def _time_mask(self, condition: SimpleCondition) -> Mask:
        """Compare the times of those blocks alone that may hold both kinds of rows."""
        if self.has_orders and isinstance(condition, InRange):
            bounds = whole_bounds(condition)
            if bounds is not None:
                return self.time_blocks.mask_within(*bounds)
        return number_mask(self.times, condition)

    @cached_property
    def time_blocks(self) -> TimeBlocks:
        return TimeBlocks(self.times)

    @cached_property
    def _metadata(self) -> Mapping[str, pa.MapArray]:
        """The columns of metadata that hold anything, by name. Asking Arrow for one takes microseconds."""
        columns = {name: self._columns.column(name) for name in _METADATA_COLUMNS}
        return {name: column for name, column in columns.items() if len(column.items)}

    @cached_property
    def times(self) -> NDArray[np.int64]:
        times: NDArray[np.int64] = self._columns.column("occurred_at_ms").to_numpy()
        return times

    def _build(self, row_filter: RowFilter) -> Mask:
        return combine(row_filter, self._condition_mask, self.num_rows)

    def numbers_of(self, key: str) -> OrderedNumbers | None:
        """Return the numbers of a metadata key in their order; None if no row has one, or without orders."""
        known = self._key_positions.find(f"{_NUMBERS} {key}")
        if known is None and self._may_have_numbers(key):
            known = self._number_positions(key)
        ordered = None if known is None else known.ordered
        return ordered if isinstance(ordered, OrderedNumbers) else None

    def numbers_at(self, key: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the numbers that some rows, (n,), have by a metadata key; NaN for a row without one."""
        positions = self._number_positions(key)
        assert positions.numbers is not None
        if positions.rows is None:
            return positions.numbers[rows]
        if not len(positions.rows):
            return np.full(len(rows), np.nan)
        items = np.searchsorted(positions.rows, rows)
        items[items == len(positions.rows)] = 0  # a row behind all that have one is none of these
        return np.where(positions.rows[items] == rows, positions.numbers[items], np.nan)

    def _may_have_numbers(self, key: str) -> bool:
        return _NUMBERS in self._metadata and self._may_have(_NUMBERS, key)

    def _number_positions(self, key: str) -> _KeyPositions:
        return self._positions_of(_NUMBERS, key)

    def _condition_mask(self, condition: Condition) -> Mask:
        mask = self._field_mask(condition)
        return ~mask if isinstance(condition, Exists) and not condition.is_present else mask

    def _field_mask(self, condition: Condition) -> Mask:
        """Evaluate a condition. For `Exists`, return which rows have a value."""
        field = condition.field
        if isinstance(condition, AllOf):
            return all_of([self._field_mask(AnyOf(field, (value,))) for value in condition.values])
        if field in _ORDERED_FIELDS and self.has_orders and not isinstance(condition, Exists):
            return self._texts_of(field).mask(texts_wanted(condition))
        if field in TEXT_FIELDS:
            return text_mask(self._columns.column(field), condition)
        if field == TIME_FIELD:
            return self._time_mask(condition)
        if field.startswith(METADATA_PREFIX):
            return self._metadata_mask(field.removeprefix(METADATA_PREFIX), condition)
        raise ValueError(f"no such field: {field}")

    def _metadata_mask(self, key: str, condition: SimpleCondition) -> Mask:
        """A row has a key in one map at most, in that of its value's type."""
        num_rows, masks = self.num_rows, []
        for name, column in self._metadata.items():
            if _METADATA_COLUMNS[name](condition) and self._may_have(name, key):
                positions = self._positions_of(name, key)
                masks.append(positions.scatter(_items_mask(column.items, positions, condition), num_rows))
        return any_of(masks) if masks else np.zeros(num_rows, np.bool_)

    def _may_have(self, name: str, key: str) -> bool:
        """Whether an item of a map column may have the key. A look-up, where finding its items is a scan."""
        known = self._known_keys[name]
        return known is None or key in known

    @cached_property
    def _known_keys(self) -> Mapping[str, frozenset[str] | None]:
        """The keys of each map column; None if they are very many."""
        distinct = {name: pc.unique(column.keys) for name, column in self._metadata.items()}
        return {
            name: frozenset(keys.to_pylist()) if len(keys) <= _MAX_KNOWN_KEYS else None
            for name, keys in distinct.items()
        }

    def _positions_of(self, name: str, key: str) -> _KeyPositions:
        column = self._metadata[name]
        return self._key_positions.find_or_build(f"{name} {key}", partial(self._find_key, column, key))

    def _find_key(self, column: pa.MapArray, key: str) -> _KeyPositions:
        items = np.flatnonzero(equals_text(column.keys, [key]))
        row_of_item = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
        rows = row_of_item[items - column.offsets[0].as_py()]
        numbers = column.items.to_numpy()[items] if pa.types.is_floating(column.items.type) else None
        known_rows = rows if len(rows) < len(column) else None
        ordered = _order_items(column.items, items, known_rows) if self.has_orders else None
        return _KeyPositions(items, known_rows, numbers, ordered)


def combine(row_filter: RowFilter, mask_of: Callable[[Condition], Mask], num_rows: int) -> Mask:
    """Return where a filter holds, (rows,), from the mask of each condition."""
    masks = [mask_of(condition) for condition in row_filter.must]
    if row_filter.should:
        masks.append(any_of([mask_of(condition) for condition in row_filter.should]))
    masks += [~mask_of(condition) for condition in row_filter.must_not]
    return all_of(masks) if masks else np.ones(num_rows, np.bool_)


def _order_items(
    items: pa.Array, positions: NDArray[np.int64], rows: NDArray[np.int64] | None
) -> OrderedNumbers | OrderedTexts | None:
    if pa.types.is_floating(items.type):
        return order_numbers(items.to_numpy()[positions], rows)
    return order_texts(items.take(pa.array(positions)), rows) if pa.types.is_string(items.type) else None


def _ordered_rows(
    ordered: OrderedNumbers | OrderedTexts | None, condition: InRange | AnyOf, most: int
) -> NDArray[np.int64] | None:
    if ordered is None:
        return None
    if isinstance(ordered, OrderedTexts):
        return ordered.rows_with(texts_wanted(condition), most)
    if isinstance(condition, InRange):
        return ordered.rows_within(condition, most)
    return ordered.rows_with([float(value) for value in condition.values if is_number(value)], most)


def _columns_of(field: str) -> Collection[str]:
    """Return the columns that a condition on a field reads."""
    if field == TIME_FIELD:
        return ("occurred_at_ms",)
    return _METADATA_COLUMNS if field.startswith(METADATA_PREFIX) else (field,)


def _items_mask(items: pa.Array, positions: _KeyPositions, condition: SimpleCondition) -> Mask:
    """Evaluate a condition on the items of one key: a mask (n,)."""
    if isinstance(condition, Exists):
        return np.ones(len(positions.items), np.bool_)
    if positions.numbers is not None:
        return number_mask(positions.numbers, condition)
    if isinstance(positions.ordered, OrderedTexts) and isinstance(condition, AnyOf):
        return positions.ordered.mask(texts_wanted(condition))
    if pa.types.is_string(items.type):
        return text_mask(items.take(pa.array(positions.items)), condition)
    if pa.types.is_list(items.type):
        return lists_mask(items.take(pa.array(positions.items)), condition)
    wanted = condition.values if isinstance(condition, AnyOf) else ()
    return np.isin(as_mask(items)[positions.items], [value for value in wanted if isinstance(value, bool)])


def _names(condition: SimpleCondition, is_of_type: Callable[[MetadataScalar], bool]) -> bool:
    """Whether a value of some type can meet the condition."""
    return isinstance(condition, Exists) or (
        isinstance(condition, AnyOf) and any(map(is_of_type, condition.values))
    )


_METADATA_COLUMNS: Mapping[str, Callable[[SimpleCondition], bool]] = MappingProxyType(
    {
        "metadata_text": lambda c: _names(c, lambda value: isinstance(value, str)),
        "metadata_number": lambda c: isinstance(c, InRange) or _names(c, is_number),
        "metadata_boolean": lambda c: _names(c, lambda value: isinstance(value, bool)),
        "metadata_texts": lambda c: _names(c, lambda value: isinstance(value, str)),
    }
)
