"""docs/logs.md lists every event that a service logs, with its level."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = ("schemas", "event_log", "clip_index", "opensearch_engine", "service", "consumer", "query_api")
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
CHOSEN_AT_RUN_TIME = {("request", "info"), ("a library reports", "warning"), ("a library reports", "error")}
"""Events whose level the code computes."""


def _logged() -> Iterator[tuple[str, str, str]]:
    """Yield (place, event, level) of every call of a logger."""
    for package in SERVICES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_log(call.func):
                    event = call.args[0]
                    assert isinstance(event, ast.Constant), f"{path}:{call.lineno}: the event must be fixed"
                    yield f"{path.relative_to(ROOT)}:{call.lineno}", event.value, LEVELS[call.func.attr]


def _is_log(function: ast.Attribute) -> bool:
    owner = getattr(function.value, "id", getattr(function.value, "attr", ""))
    return owner in ("log", "_log") and function.attr in LEVELS


def _documented() -> dict[str, set[str]]:
    """Return the levels of each event, as the page lists them."""
    table = (ROOT / "docs" / "logs.md").read_text().partition("## Events")[2]
    levels: dict[str, set[str]] = {}
    for events, words in re.findall(r"^\| (`.+?`) \| ([a-z, ]+) \|", table, re.MULTILINE):
        for event in re.findall(r"`([^`]+)`", events):
            levels[event] = set(words.split(", "))
    return levels


LOGGED = list(_logged())


@pytest.mark.parametrize(("event", "level"), [one[1:] for one in LOGGED], ids=[one[0] for one in LOGGED])
def test_every_event_is_documented_with_its_level(event: str, level: str) -> None:
    assert level in _documented().get(event, set()), event


def test_every_documented_event_is_logged() -> None:
    pairs = {(event, level) for _, event, level in LOGGED} | CHOSEN_AT_RUN_TIME
    events = {event for event, _ in pairs}
    assert _documented().keys() == events
    assert {level for levels in _documented().values() for level in levels} <= set(LEVELS.values())


@pytest.mark.parametrize("event", sorted({event for _, event, _ in LOGGED}))
def test_an_event_is_lower_case_and_ends_without_a_stop(event: str) -> None:
    assert event == event.lower()
    assert not event.endswith((".", "!", ":"))
