"""Both services say what they are, and take no flag that they do not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest

import consumer.__main__
import query_api.__main__
from cliptide.__main__ import main as cliptide_main

Main: TypeAlias = Callable[[Sequence[str]], int]
SERVICES: dict[str, Main] = {"consumer": consumer.__main__.main, "query_api": query_api.__main__.main}


@pytest.mark.parametrize("name", SERVICES)
def test_help_tells_the_exit_codes_and_where_settings_come_from(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        SERVICES[name](["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"python -m {name}" in told
    for words in ("Exit codes", "bad settings", "CLIPTIDE_"):
        assert words in told
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize("name", SERVICES)
def test_a_flag_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        SERVICES[name](["--port", "1"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "--port" in told
    assert "settings are variables and not flags, for example CLIPTIDE_QUERY_API__PORT=8080" in told


@pytest.mark.parametrize("program", ["serve", "consume"])
def test_the_help_of_a_service_names_the_program_that_was_called(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cliptide_main([program, "--help"], prog_name="cliptide", standalone_mode=False)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: cliptide {program}" in printed
    assert f"`cliptide {program}`: " in printed
    assert "python -m" not in printed
