"""The client's own distribution: what it holds, what it needs, and that it works beside the service's."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from cliptide.client import AsyncClient, Client

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "clients" / "python"
PACKAGE = SOURCE / "src" / "cliptide" / "client"
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
LIGHT = (
    "import sys, cliptide.client; print(sorted({'torch', 'faiss', 'numpy', 'aiohttp'} & set(sys.modules)))"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of the client with the installed back end, so that nothing is downloaded."""
    tree, built = tmp_path_factory.mktemp("tree") / "client", tmp_path_factory.mktemp("built")
    shutil.copytree(SOURCE, tree, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(built)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return built / done.stdout.splitlines()[-1]


def run(code: str, folders: list[Path], cwd: Path) -> str:
    """Run code with these folders and the libraries on the path, and no install of this repository."""
    path = os.pathsep.join(map(str, [*folders, sysconfig.get_path("purelib")]))
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=cwd,
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def client_folder(wheel: Path, tmp_path: Path) -> Path:
    zipfile.ZipFile(wheel).extractall(tmp_path / "client")
    return tmp_path / "client"


@pytest.fixture
def service_folder(tmp_path: Path) -> Path:
    """The service's package `cliptide`, as its wheel brings it."""
    shutil.copytree(ROOT / "cliptide", tmp_path / "service" / "cliptide")
    return tmp_path / "service"


def test_the_client_alone_loads_nothing_heavy(client_folder: Path, tmp_path: Path) -> None:
    assert run(f"{LIGHT}; print(cliptide.__file__)", [client_folder], tmp_path) == "[]\nNone"


@pytest.mark.parametrize("is_first", [True, False], ids=["before the service", "behind the service"])
def test_client_and_service_work_together_from_two_folders(
    client_folder: Path, service_folder: Path, tmp_path: Path, is_first: bool
) -> None:
    folders = [client_folder, service_folder] if is_first else [service_folder, client_folder]
    assert run(f"{LIGHT}; import cliptide.terminal", folders, tmp_path) == "[]"


def test_client_and_service_work_together_in_one_folder(
    client_folder: Path, service_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(service_folder, client_folder, dirs_exist_ok=True)
    assert run(f"{LIGHT}; import cliptide.terminal", [client_folder], tmp_path) == "[]"


def test_readme_shows_calls_that_the_client_has() -> None:
    code = re.findall(r"```python\n(.*?)```", (SOURCE / "README.md").read_text(), re.DOTALL)
    called = {
        node.func.attr
        for node in ast.walk(ast.parse("\n".join(code)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "client"
    }
    assert called >= {"upload", "wait_for", "search", "recommend", "pages", "delete"}
    assert all(hasattr(Client, name) for name in called)


@pytest.mark.parametrize("name", [name for name in vars(AsyncClient) if not name.startswith("_")])
def test_both_clients_have_the_same_methods_with_the_same_arguments(name: str) -> None:
    assert str(inspect.signature(getattr(Client, name)).parameters) == str(
        inspect.signature(getattr(AsyncClient, name)).parameters
    )


def test_the_wheel_holds_the_client_and_not_the_package_around_it(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.removeprefix("cliptide/client/") for name in names} == {
        path.name for path in PACKAGE.iterdir() if path.is_file()
    }
    assert "cliptide/client/py.typed" in names


def test_the_distribution_needs_httpx_alone(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith("METADATA")]
    lines = archive.read(metadata).decode().splitlines()
    needed = [line for line in lines if line.startswith("Requires-Dist:")]
    assert needed == ["Requires-Dist: httpx>=0.27"]
    imported = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else node.names[0].name
        for path in PACKAGE.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported - set(sys.stdlib_module_names) == {"httpx", "cliptide"}
