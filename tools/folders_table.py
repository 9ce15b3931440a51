"""`python -m tools.folders_table`: the table of all folders, each with the sentence of its `__init__.py`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "schemas",
    "event_log",
    "clip_index",
    "opensearch_engine",
    "service",
    "consumer",
    "query_api",
    "cliptide",
    "fakes",
    "crashes",
    "benchmarks",
    "tools",
)


def sentence_of(folder: Path) -> str:
    """Return the first paragraph of the folder's `__init__.py` as one line."""
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    if docstring is None:
        raise LookupError(f"{folder}/__init__.py does not say what the folder holds")
    return " ".join(docstring.split("\n\n")[0].split())


def folders_of(package: str) -> Iterator[Path]:
    """Yield the package's folder and every folder below it that holds code."""
    yield from (path.parent for path in sorted((ROOT / package).rglob("__init__.py")))


def build_table() -> str:
    lines = ["| folder | holds |", "|---|---|"]
    for package in PACKAGES:
        for folder in folders_of(package):
            name = f"`{folder.relative_to(ROOT).as_posix()}/`"
            shown = f"**{name}**" if folder.parent == ROOT else name
            lines.append(f"| {shown} | {sentence_of(folder)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(build_table() + "\n")
