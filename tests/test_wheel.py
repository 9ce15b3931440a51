"""The wheel holds every file of the packages, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_INSTALLED = ("fakes", "crashes", "benchmarks", "tools")
PACKAGES = (
    "schemas",
    "event_log",
    "clip_index",
    "opensearch_engine",
    "service",
    "consumer",
    "query_api",
    "cliptide",
)
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel of this tree with the installed back end, so that nothing is downloaded."""
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for package in (*PACKAGES, *NOT_INSTALLED):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", BUILD, str(built)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(built / done.stdout.splitlines()[-1])


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_installed(wheel: zipfile.ZipFile, package: str) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert files - set(wheel.namelist()) == set()
    assert f"{package}/py.typed" in files


def test_nothing_but_the_packages_is_installed(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "cliptide = cliptide.__main__:main" in wheel.read(entry_points).decode()
