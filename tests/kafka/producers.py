"""The examples for producers, built once and kept in `.cache/`, as commands that can be run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "producers"
SCHEMA = Path(__file__).parents[2] / "schemas" / "upload_event.avsc"
_CACHE = Path(__file__).parents[2] / ".cache" / "producers"
_BUILD_SECONDS = 1800.0


class ExampleUnavailable(Exception):
    """A tool that the example needs is missing, or its packages cannot be fetched."""


def command_of(client: str) -> list[str]:
    """Return the command of a client's example, built if it must be."""
    return _COMMANDS[client]()


def _python() -> list[str]:
    return [sys.executable, str(EXAMPLES / "python" / "producer.py")]


def _kcat() -> list[str]:
    _require("kcat")
    return [str(EXAMPLES / "kcat" / "producer.sh")]


def _node() -> list[str]:
    def build(folder: Path) -> None:
        for name in ("package.json", "package-lock.json", "producer.js"):
            shutil.copy(EXAMPLES / "node" / name, folder)
        _run([_require("npm"), "ci", "--no-audit", "--no-fund"], folder)

    return [_require("node"), str(_built("node", build) / "producer.js")]


def _java() -> list[str]:
    def build(folder: Path) -> None:
        copy = [_require("mvn"), "-q", "-B", "-f", str(EXAMPLES / "java" / "pom.xml")]
        _run([*copy, "dependency:copy-dependencies", f"-DoutputDirectory={folder}"], folder)
        _run([_require("javac"), "-cp", f"{folder}/*", "-d", str(folder), _JAVA_SOURCE], folder)

    folder = _built("java", build)
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}:{folder}/*", "Producer"]


def _go() -> list[str]:
    def build(folder: Path) -> None:
        _run([_require("go"), "build", "-o", str(folder / "producer"), "."], EXAMPLES / "go")

    return [str(_built("go", build) / "producer")]


def _rust() -> list[str]:
    def build(folder: Path) -> None:
        target = _CACHE / "rust-target"
        manifest = str(EXAMPLES / "rust" / "Cargo.toml")
        _run([_require("cargo"), "build", "--manifest-path", manifest, "--target-dir", str(target)], folder)
        shutil.copy(target / "debug" / "producer", folder)

    return [str(_built("rust", build) / "producer")]


_JAVA_SOURCE = str(EXAMPLES / "java" / "Producer.java")
_COMMANDS: dict[str, Callable[[], list[str]]] = {
    "python": _python,
    "kcat": _kcat,
    "node": _node,
    "java": _java,
    "go": _go,
    "rust": _rust,
}


def _require(tool: str) -> str:
    """Return the path of a tool; one of the virtual environment is taken where the system has none."""
    path = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if path is None:
        raise ExampleUnavailable(f"{tool} not found: make system-deps installs what the examples need")
    return path


def _built(client: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of the built example, which is built again when one of its files changes."""
    files = sorted(path for path in (EXAMPLES / client).iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
    folder = _CACHE / f"{client}-{digest[:12]}"
    if folder.exists():
        return folder
    partial = folder.with_name(f"partial-{client}-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        build(partial)
        os.rename(partial, folder)
    except OSError:  # another test run has built it meanwhile
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS
    )
    if done.returncode != 0:
        raise ExampleUnavailable(f"{Path(command[0]).name}: {(done.stderr or done.stdout)[-500:]}")
