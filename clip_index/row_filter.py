"""Which rows a search may return: conditions on a content's fields, as plain values.

Fields are `modality`, `source`, `owner_id`, `content_id`, `occurred_at` (milliseconds
since 1970) and `metadata.<key>`. A condition on a field that a content does not have is false.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TypeAlias

from clip_index.content import MetadataScalar

TEXT_FIELDS = frozenset({"modality", "source", "owner_id", "content_id"})
TIME_FIELD = "occurred_at"
METADATA_PREFIX = "metadata."


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field equals one of the values, or is a list that holds one of them.

    Types count: neither "1" nor True equals the number 1.
    """

    field: str
    values: tuple[MetadataScalar, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """The field is a list that holds all of the values. A single value is like a list of one."""

    field: str
    values: tuple[MetadataScalar, ...]


@dataclass(frozen=True, slots=True)
class InRange:
    """The field is a number (or the time) that keeps all given bounds."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value of any type. If `is_present` is False: the field has no value."""

    field: str
    is_present: bool = True


SimpleCondition: TypeAlias = AnyOf | InRange | Exists
Condition: TypeAlias = SimpleCondition | AllOf


@dataclass(frozen=True, slots=True)
class RowFilter:
    """All of `must`, at least one of `should` (if there are any), none of `must_not`."""

    must: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()
    _key: str = field(default="", init=False, repr=False, compare=False)

    @property
    def key(self) -> str:
        """A digest that filters share if they differ only in order. Unlike `==`, it tells True from 1.0.

        It is short however large the filter is, because caches keep it. It is computed once.
        """
        if not self._key:
            object.__setattr__(self, "_key", self._digest())
        return self._key

    def _digest(self) -> str:
        parts = (self.must, self.should, self.must_not)
        text = repr([sorted(map(repr, conditions)) for conditions in parts])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
