"""Which package may import which, and where each foreign library is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "event_log", "clip_index", "service", "consumer", "query_api", "cliptide")
NOT_INSTALLED = ("crashes", "benchmarks", "tools", "tests")

ALLOWED = {
    "schemas": set(),
    "event_log": set(),
    "clip_index": set(),
    "service": set(),
    "consumer": {"schemas", "event_log", "clip_index", "service"},
    "query_api": {"schemas", "event_log", "clip_index", "service"},
    "cliptide": {"schemas", "event_log", "clip_index", "service", "consumer", "query_api"},
}

HOMES = {
    "confluent_kafka": ("event_log/",),
    "torch": ("clip_index/encoder/open_clip/", "cliptide/demo/", "cliptide/training/"),
    "open_clip": ("clip_index/encoder/open_clip/", "cliptide/demo/", "cliptide/training/"),
    "faiss": ("clip_index/vectors/",),
    "PIL": (
        "clip_index/encoder/image_headers.py",
        "clip_index/encoder/images.py",
        "cliptide/demo/",
        "cliptide/training/",
    ),
    "fastavro": ("schemas/",),
    "aiohttp": ("query_api/", "consumer/references/"),
    "obstore": ("consumer/references/"),
    "pyarrow": ("clip_index/",),
}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a module imports anywhere in its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    for path in modules_of(package):
        ours = set(imports_of(path)) & set(PACKAGES) - {package}
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


@pytest.mark.parametrize("library", HOMES)
def test_a_foreign_library_stays_at_home(library: str) -> None:
    for package in PACKAGES:
        for path in modules_of(package):
            name = path.relative_to(ROOT).as_posix()
            if library in set(imports_of(path)):
                assert name.startswith(HOMES[library]), f"{name} imports {library}"


def test_importing_the_engine_does_not_import_torch() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in modules_of("clip_index")]
    modules = [".".join(path.parts) for path in paths if "open_clip" not in path.parts]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_test_or_tool_is_imported_by_a_package() -> None:
    for package in PACKAGES:
        for path in modules_of(package):
            assert not set(NOT_INSTALLED) & set(imports_of(path)), path


@pytest.mark.parametrize("package", PACKAGES)
def test_a_time_out_is_caught_under_the_name_that_every_python_gives_it(package: str) -> None:
    """Before Python 3.11, `except TimeoutError` does not catch the time-outs of futures and asyncio."""
    for path in modules_of(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = [one.id for one in caught if isinstance(one, ast.Name)]
                assert "TimeoutError" not in names, f"{path.relative_to(ROOT)}:{node.lineno}"
