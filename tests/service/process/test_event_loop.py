"""A service runs on uvloop if it is installed, and on asyncio's own loop otherwise."""

from __future__ import annotations

import asyncio
import sys

import pytest

from service.process.event_loop import run_in_loop


def module_of_loop() -> str:
    """Run something, and return where the class of its event loop lives."""
    found: list[str] = []

    async def note() -> None:
        found.append(type(asyncio.get_running_loop()).__module__)

    run_in_loop(note())
    return found[0].partition(".")[0]


def test_uvloop_is_used_where_it_is_installed() -> None:
    assert module_of_loop() == "uvloop"


def test_the_loop_of_asyncio_is_used_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert module_of_loop() == "asyncio"


def test_what_goes_wrong_inside_reaches_the_caller() -> None:
    async def fail() -> None:
        raise ArithmeticError("inside")

    with pytest.raises(ArithmeticError, match="inside"):
        run_in_loop(fail())
