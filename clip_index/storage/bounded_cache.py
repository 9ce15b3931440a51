"""What was built last, kept up to a number of entries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_ValueT = TypeVar("_ValueT")


class BoundedCache(Generic[_ValueT]):
    """The values built last, by key; thread-safe. Two threads may build the same value at once."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._values: OrderedDict[str, _ValueT] = OrderedDict()

    def find_or_build(self, key: str, build: Callable[[], _ValueT]) -> _ValueT:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = build()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._max_entries:
                self._values.popitem(last=False)
        return value
