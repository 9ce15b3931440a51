"""Every test can fail: it asserts something itself, or through a function that it calls."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

REPOSITORY = Path(__file__).parents[1]
CHECKS = frozenset({"raises", "warns", "fail"})  # of pytest
CALLS_THAT_RAISE = {  # the call raises on what is wrong; that it returns is what the test says
    "test_a_good_image_passes",
    "test_a_golden_event_is_valid",
    "test_an_event_at_the_edge_of_a_rule_is_good",
    "test_another_c_library_is_left_alone",
    "test_it_works_with_the_c_library_of_this_machine",
    "test_the_schema_is_a_json_schema",
}

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Functions: TypeAlias = Mapping[str, Sequence[Function]]


def functions_of(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def names_in(function: Function) -> set[str]:
    """What a function calls or hands on, by name."""
    nodes = list(ast.walk(function))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


def asserts(function: Function, helpers: Functions, seen: frozenset[str] = frozenset()) -> bool:
    names = names_in(function)
    if any(isinstance(node, ast.Assert | ast.Raise) for node in ast.walk(function)):
        return True
    if names & CHECKS or any(name.startswith("assert_") for name in names):
        return True
    called = (names & helpers.keys()) - seen - {function.name}
    return any(
        asserts(helper, helpers, seen | {function.name, name}) for name in called for helper in helpers[name]
    )


def names_of_empty_tests(sources: Sequence[str]) -> set[str]:
    functions = [function for source in sources for function in functions_of(source)]
    helpers: dict[str, list[Function]] = defaultdict(list)
    for function in functions:
        if not function.name.startswith("test_"):
            helpers[function.name].append(function)
    tests = (function for function in functions if function.name.startswith("test_"))
    return {test.name for test in tests if not asserts(test, helpers)}


def test_every_test_asserts_something() -> None:
    folders = ("tests", "fakes", "crashes")
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    assert names_of_empty_tests([path.read_text("utf-8") for path in files]) == CALLS_THAT_RAISE


def test_a_test_that_asserts_nothing_is_found() -> None:
    sources = [
        "def test_a():\n    check()\ndef check():\n    deep()\ndef deep():\n    assert 1",
        "async def test_b():\n    with pytest.raises(ValueError):\n        f()",
        "def test_c():\n    value == 1\ndef unused():\n    assert 1",
        "class TestD:\n    def test_d(self):\n        turn()\ndef turn():\n    turn()",
    ]
    assert names_of_empty_tests(sources) == {"test_c", "test_d"}
