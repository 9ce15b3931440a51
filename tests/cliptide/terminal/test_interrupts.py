"""Ctrl-C ends a command, also where Python could not raise it."""

from __future__ import annotations

import signal
import sys
import time
import weakref
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cliptide.__main__ import main
from cliptide.command_table import COMMANDS
from cliptide.terminal.interrupts import interrupts_kept


class Weak:
    """Something that a weak reference can lead to."""


class Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def interrupt_in_a_callback() -> None:
    """What happens when Ctrl-C comes while Python imports: its lock of a module has such a callback."""
    target = Weak()
    kept = weakref.ref(target, lambda _: signal.raise_signal(signal.SIGINT))
    del target
    assert kept() is None


def interrupt_in_a_finalizer() -> None:
    Finalized()


def wait_to_be_interrupted() -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.001)
    pytest.fail("the interrupt was forgotten")


@pytest.mark.parametrize("interrupt", [interrupt_in_a_callback, interrupt_in_a_finalizer])
def test_an_interrupt_that_python_could_not_raise_is_raised_a_moment_later(interrupt: Any) -> None:
    with interrupts_kept():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            wait_to_be_interrupted()


def test_what_else_python_reports_goes_where_it_went_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: seen.append(one.exc_type))
    before = sys.unraisablehook
    target = Weak()
    kept = weakref.ref(target, lambda _: 1 / 0)
    with interrupts_kept():
        del target
    assert (kept(), seen) == (None, [ZeroDivisionError])
    assert sys.unraisablehook is before


def test_every_command_is_ended_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def slow() -> None:
        interrupt_in_a_callback()
        wait_to_be_interrupted()

    monkeypatch.setattr(main, "commands", dict.fromkeys(COMMANDS, slow))
    for name in list(COMMANDS)[:3]:
        result = CliRunner().invoke(main, [name])
        assert result.exit_code == 1
        assert "Aborted!" in result.output
