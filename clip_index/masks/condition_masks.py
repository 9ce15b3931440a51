"""Which values meet a condition of a filter: masks over plain columns of texts, numbers and lists."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil, floor
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.content import MetadataScalar
from clip_index.row_filter import AnyOf, Exists, InRange, SimpleCondition

Mask: TypeAlias = NDArray[np.bool_]

_MAX_EXACT = 2.0**53
_LEAST, _GREATEST = -(2**63), 2**63 - 1  # of 64-bit integers


def texts_wanted(condition: InRange | AnyOf) -> list[str]:
    """Return the texts that meet a condition. No text is within a range."""
    return (
        [value for value in condition.values if isinstance(value, str)]
        if isinstance(condition, AnyOf)
        else []
    )


def any_of(masks: Sequence[Mask]) -> Mask:
    return reduce(np.logical_or, masks)


def all_of(masks: Sequence[Mask]) -> Mask:
    return reduce(np.logical_and, masks)


def text_mask(column: pa.Array, condition: SimpleCondition) -> Mask:
    if isinstance(condition, Exists):
        return as_mask(pc.is_valid(column))
    if isinstance(condition, InRange):
        return np.zeros(len(column), np.bool_)
    return equals_text(column, [value for value in condition.values if isinstance(value, str)])


def equals_text(column: pa.Array, values: Sequence[str]) -> Mask:
    if len(values) == 1:
        return as_mask(pc.fill_null(pc.equal(column, pa.scalar(values[0], column.type)), False))
    return as_mask(pc.is_in(column, value_set=pa.array(values, column.type)))


def number_mask(numbers: NDArray[Any], condition: SimpleCondition) -> Mask:
    if isinstance(condition, Exists):
        return np.ones(len(numbers), np.bool_)
    if isinstance(condition, AnyOf):
        return np.isin(numbers, np.array([v for v in condition.values if is_number(v)], np.float64))
    bounds = (
        (np.greater, condition.gt),
        (np.greater_equal, condition.gte),
        (np.less, condition.lt),
        (np.less_equal, condition.lte),
    )
    masks = [compare(numbers, bound) for compare, bound in bounds if bound is not None]
    return all_of(masks) if masks else np.ones(len(numbers), np.bool_)


def whole_bounds(condition: InRange) -> tuple[int, int] | None:
    """Return the least and the greatest whole number within the bounds; None if they are not exact floats."""
    gt, gte, lt, lte = condition.gt, condition.gte, condition.lt, condition.lte
    for bound in (gt, gte, lt, lte):
        if bound is not None and not abs(bound) < _MAX_EXACT:
            return None
    least = _LEAST if gt is None else floor(gt) + 1
    most = _GREATEST if lt is None else ceil(lt) - 1
    if gte is not None:
        least = max(least, ceil(gte))
    if lte is not None:
        most = min(most, floor(lte))
    return least, most


def lists_mask(lists: pa.ListArray, condition: SimpleCondition) -> Mask:
    """Return which lists hold a text that meets the condition: a mask (n,)."""
    mask = np.zeros(len(lists), np.bool_)
    list_of_text = np.asarray(pc.list_parent_indices(lists))
    mask[list_of_text[text_mask(pc.list_flatten(lists), condition)]] = True
    return mask


def is_number(value: MetadataScalar) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_mask(array: pa.BooleanArray) -> Mask:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)
