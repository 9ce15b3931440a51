"""Memory that was freed goes back to the system, where the C library can do that."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from service.process.freed_memory import return_freed_memory


def test_the_allocator_is_asked_once_to_return_all_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=asked.append))
    return_freed_memory()
    assert asked == [0]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    return_freed_memory()


def test_it_works_with_the_c_library_of_this_machine() -> None:
    return_freed_memory()
