"""What tests run as programs can be imported. pytest collects none of it, so that a move may break it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
NEEDS_GENERATED_CODE = REPOSITORY / "tests" / "clients" / "scripts"
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def modules_beside_tests() -> list[str]:
    paths = [
        path for path in (REPOSITORY / "tests").rglob("*.py") if NEEDS_GENERATED_CODE not in path.parents
    ]
    helpers = [path for path in paths if not path.name.startswith("test_") and path.name != "conftest.py"]
    return [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in helpers]


def test_every_module_that_a_test_may_run_can_be_imported() -> None:
    modules = modules_beside_tests()
    assert "tests.consumer.hash_consumer" in modules
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
