"""A cache of values that are costly to build."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_ValueT = TypeVar("_ValueT")


class BoundedCache(Generic[_ValueT]):
    """The values used last, by key, up to `max_entries`.

    Thread-safe. Two threads that miss the same key at the same time both build its value.
    """

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
