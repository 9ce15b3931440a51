"""The service knows the engine by its seam alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import query_api

ROOT = Path(query_api.__file__).parent
BELOW = ("reading", "generations", "segments", "vectors", "writing")
SEAM = "serving/engine.py"
BUILDERS = ("opened_index.py", "root_candidates.py")


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in sorted(ROOT.rglob("*.py"))]
)
def test_nothing_imports_below_the_seam_but_the_seam_and_who_builds_the_reader(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() in (SEAM, *BUILDERS):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, below = node.module.partition(".")
            assert package != "opensearch_engine", node.module
            assert package != "clip_index" or below.split(".")[0] not in BELOW, node.module
