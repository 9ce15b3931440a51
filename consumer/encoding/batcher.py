"""When a batch is closed. Pure: the caller says what time it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch closes when it has `max_rows` rows to encode, or `max_age_seconds` after its first item."""

    max_rows: int = 32
    max_age_seconds: float = 0.05


class Batcher(Generic[ItemT]):
    """Collects items in order until a batch is due.

    Items with nothing to encode (deletes, dead letters) have no rows, but they age like the others.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._items: list[ItemT] = []
        self._rows = 0
        self._opened_at = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: ItemT, *, rows: int, now: float) -> None:
        if not self._items:
            self._opened_at = now
        self._items.append(item)
        self._rows += rows

    @property
    def is_full(self) -> bool:
        return self._rows >= self._limits.max_rows

    def is_due(self, now: float) -> bool:
        return bool(self._items) and (self.is_full or self.seconds_until_due(now) <= 0)

    def seconds_until_due(self, now: float) -> float:
        """How long the open batch may still wait; infinite while the batch is empty."""
        if not self._items:
            return float("inf")
        return self._opened_at + self._limits.max_age_seconds - now

    def close(self) -> list[ItemT]:
        """Return the batch and begin a new one."""
        batch, self._items, self._rows = self._items, [], 0
        return batch
