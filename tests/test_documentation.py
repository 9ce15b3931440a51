"""What can drift is tested: tables made from the code, links, commands."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from benchmarks.published import build_table as build_figures_table
from tests.flags_table import build_table as build_flags_table
from tests.settings_table import build_table as build_settings_table

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "schemas/README.md"]


def between(text: str, name: str) -> str:
    """The generated part of a page, between its two comments."""
    found = re.search(rf"<!-- {name}: generated.*?-->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
    assert found is not None, f"no part {name!r}"
    return found[1].strip()


def test_every_setting_is_documented_as_the_code_reads_it() -> None:
    assert between(README.read_text(), "settings") == build_settings_table().strip()


def test_every_setting_says_what_it_does() -> None:
    undocumented = [line for line in build_settings_table().splitlines()[2:] if line.endswith("|  |")]
    assert undocumented == []


def test_every_flag_of_the_command_line_has_its_variable_in_the_readme() -> None:
    table = build_flags_table()
    assert between(README.read_text(), "flags") == table.strip()
    assert [line for line in table.splitlines()[2:] if line.endswith("|  |")] == []


def test_the_figures_are_those_last_published() -> None:
    assert between(README.read_text(), "figures") == build_figures_table().strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_has_the_cells_of_its_head(page: Path) -> None:
    bars = [
        len(re.findall(r"(?<!\\)\|", line)) * line.startswith("|") for line in page.read_text().splitlines()
    ]
    tables = [list(rows) for is_table, rows in groupby(bars, key=bool) if is_table]
    assert [len(set(rows)) for rows in tables] == [1] * len(tables)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", page.read_text()))
    prose = {"it", "sure", "them"}
    assert named - prose <= targets


def test_every_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target
