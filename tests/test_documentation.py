"""The documents agree with the code: generated parts, links, tables, commands."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from tools.flags_table import build_table as build_flags_table
from tools.settings_table import build_table as build_settings_table
from tools.write_generated import PARTS, GeneratedPart

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "schemas/README.md"]
REMEDY = "run python -m tools.write_generated"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_generated_part_is_what_the_code_says(part: GeneratedPart) -> None:
    assert part.read() == part.build().strip(), REMEDY


def test_every_setting_says_what_it_does() -> None:
    undocumented = [line for line in build_settings_table().splitlines()[2:] if line.endswith("|  |")]
    assert undocumented == []


def test_every_flag_of_the_command_line_says_what_it_does() -> None:
    undocumented = [line for line in build_flags_table().splitlines()[2:] if line.endswith("|  |")]
    assert undocumented == []


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
