"""The cache of values that are costly to get, bounded in entries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_KeyT = TypeVar("_KeyT")
_ValueT = TypeVar("_ValueT")


class BoundedCache(Generic[_KeyT, _ValueT]):
    """The values used last, by key, up to `max_entries`; None is not a value. Thread-safe."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._values: OrderedDict[_KeyT, _ValueT] = OrderedDict()

    def find(self, key: _KeyT) -> _ValueT | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def keep(self, key: _KeyT, value: _ValueT) -> None:
        """Keep a value; if there are too many, drop the one that was used the longest time ago."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._max_entries:
                self._values.popitem(last=False)

    def find_or_build(self, key: _KeyT, build: Callable[[], _ValueT]) -> _ValueT:
        """Return the value of a key. Two threads that miss it at the same time both build it."""
        value = self.find(key)
        if value is None:
            value = build()
            self.keep(key, value)
        return value
