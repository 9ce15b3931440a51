"""What uploads hold is printed, and neither read as markup nor obeyed by the terminal."""

import io

import pytest
from rich.console import Console

from cliptide.searching.answers import AnsweredHit, build_table
from cliptide.terminal.plain_text import without_controls
from cliptide.verify.command import print_table
from cliptide.verify.verification import ShardDifference

HOSTILE = "[/b] \x1b]0;title\x07 \x9b2J \u202egnp"
HARMLESS = r"[/b] \x1b]0;title\x07 \x9b2J \u202egnp"


def printed_on(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_other_scripts_stay_as_they_are() -> None:
    assert without_controls("日本　語 עברית 👨\u200d👩 é") == "日本　語 עברית 👨\u200d👩 é"


def test_hits_are_printed_as_they_are(console: Console) -> None:
    console.print(build_table("text", [AnsweredHit("text", HOSTILE, 0.5, f"{HOSTILE}\nnext", None, None)]))
    assert printed_on(console).count(HARMLESS) == 2
    assert f"{HARMLESS} next" in printed_on(console)


def test_differences_of_long_shards_fit_a_terminal_of_80_columns() -> None:
    console = Console(width=80, file=io.StringIO())
    ids = tuple(f"holiday/2024/{number}.jpg" for number in range(30))
    print_table(console, [ShardDifference("content-uploads-12", 1_234_567, missing=ids)])
    printed = printed_on(console)
    row = next(line for line in printed.splitlines() if "content-uploads-12 " in line)
    assert row.split() == ["content-uploads-12", "1,234,567", "0", "30", "0", "0"]
    assert "content-uploads-12, missing: holiday/2024/0.jpg, " in printed
    assert "(30 in all)" in printed


def test_differences_are_printed_as_they_are(console: Console) -> None:
    print_table(console, [ShardDifference("uploads-0", 1, missing=(HOSTILE,))])
    assert HARMLESS in printed_on(console)
