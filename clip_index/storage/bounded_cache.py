"""The cache of values that are costly to get, bounded in entries and in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

MAX_CACHE_BYTES = 64 * 2**20

_KeyT = TypeVar("_KeyT")
_ValueT = TypeVar("_ValueT")


class BoundedCache(Generic[_KeyT, _ValueT]):
    """The values used last, by key, up to `max_entries`; None is not a value. Thread-safe.

    With `size_of`, the bytes of a value when it is kept, all values together have at most `max_bytes`. The
    value that was kept last stays even if it alone is larger. Keys do not count: a long key should be a
    digest.
    """

    def __init__(
        self,
        max_entries: int,
        *,
        max_bytes: int = MAX_CACHE_BYTES,
        size_of: Callable[[_ValueT], int] = lambda _: 0,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._values: OrderedDict[_KeyT, _ValueT] = OrderedDict()
        self._sizes: dict[_KeyT, int] = {}

    def find(self, key: _KeyT) -> _ValueT | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def keep(self, key: _KeyT, value: _ValueT) -> None:
        """Keep a value; if there is too much, drop what was used the longest time ago."""
        size = self._size_of(value)
        with self._lock:
            if key in self._values:
                self._forget(key)
            self._values[key], self._sizes[key] = value, size
            self._num_bytes += size
            while self._has_too_much():
                self._forget(next(iter(self._values)))

    def drop_if(self, is_old: Callable[[_ValueT], bool]) -> None:
        with self._lock:
            for key in [key for key, value in self._values.items() if is_old(value)]:
                self._forget(key)

    def drop(self, key: _KeyT) -> None:
        """Forget a value, if it is there."""
        with self._lock:
            if key in self._values:
                self._forget(key)

    def _has_too_much(self) -> bool:
        num_entries = len(self._values)
        return num_entries > self._max_entries or (num_entries > 1 and self._num_bytes > self._max_bytes)

    def _forget(self, key: _KeyT) -> None:
        del self._values[key]
        self._num_bytes -= self._sizes.pop(key)

    def find_or_build(self, key: _KeyT, build: Callable[[], _ValueT]) -> _ValueT:
        """Return the value of a key. Two threads that miss it at the same time both build it."""
        value = self.find(key)
        if value is None:
            value = build()
            self.keep(key, value)
        return value
