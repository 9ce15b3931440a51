"""The documents agree with the code: generated parts, links, tables, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tools.flags_table import build_table as build_flags_table
from tools.folders_table import PACKAGES
from tools.settings_table import build_table as build_settings_table
from tools.write_generated import PARTS, GeneratedFile, GeneratedPart

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("examples/**/*.md"),
    ROOT / "schemas/README.md",
]
SOURCES = (".py", ".avsc", ".md", ".yml", ".toml", ".lock")
REMEDY = "run python -m tools.write_generated"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_generated_part_is_what_the_code_says(part: GeneratedPart | GeneratedFile) -> None:
    assert part.read() == part.build().strip(), REMEDY


def test_every_setting_says_what_it_does() -> None:
    undocumented = [line for line in build_settings_table().splitlines()[2:] if line.endswith("|  |")]
    assert undocumented == []


def test_every_flag_of_the_command_line_says_what_it_does() -> None:
    undocumented = [line for line in build_flags_table().splitlines()[2:] if line.endswith("|  |")]
    assert undocumented == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    for target in [*links, *re.findall(r'<img src="([^"]+)"', text)]:
        assert (page.parent / target).exists(), target


def paths_named(page: Path) -> Iterator[str]:
    """Yield the paths that stand between backticks, and those that begin a label of a diagram."""
    text = page.read_text()
    yield from re.findall(r'\["((?:\w+/)+(?:\w+\.py)?)', text)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`([\w.-]+(?:/[\w.<>-]+)*/?)`", prose):
        top, is_deeper, _ = name.partition("/")
        if name.endswith(SOURCES) or (is_deeper and any((start / top).is_dir() for start in starts(page))):
            yield name


def starts(page: Path) -> tuple[Path, ...]:
    """The folders from which a page may name a path; diagrams name those of a service from the service's."""
    return ROOT, page.parent, ROOT / "consumer", ROOT / "query_api"


def exists(name: str, page: Path) -> bool:
    """Whether a path leads somewhere. `<...>` stands for any text; a bare name may be in any folder."""
    pattern = re.sub(r"<\w+>", "*", name).rstrip("/")
    if any(next(start.glob(pattern), None) for start in starts(page)):
        return True
    return "/" not in name and any(next((ROOT / top).rglob(pattern), None) for top in PACKAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert sorted({name for name in paths_named(page) if not exists(name, page)}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_program_that_a_page_names_exists(page: Path) -> None:
    programs = {module.replace(".", "/") for module in re.findall(r"python -m ([\w.]*\w)", page.read_text())}
    found = {name for name in programs if exists(f"{name}.py", page) or exists(f"{name}/__main__.py", page)}
    assert programs - found == set()


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


def test_every_setting_of_a_folder_or_store_is_in_the_list_of_what_a_delete_leaves() -> None:
    """A promise to erase covers all copies, or names those that it does not cover."""
    settings = re.findall(
        r"^\| `(CLIPTIDE_\w+_(?:DIRECTORY|DIR|STORE))`", build_settings_table(), re.MULTILINE
    )
    text = (ROOT / "docs/operations.md").read_text()
    [promise] = re.findall(r"\*\*When is a deleted content gone\?\*\*.*?\n\n\|.*?\n\n", text, re.DOTALL)
    assert "CLIPTIDE_INDEX__CACHE_DIR" in settings
    missing = [setting for setting in settings if setting not in promise]
    assert missing == ["CLIPTIDE_ENCODER__CACHE_DIR"]  # which holds models and no contents
