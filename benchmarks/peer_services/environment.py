"""The environment in which the peers are installed: apart from ours, and kept between runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.indexes.searched_index import CACHE

PEERS = CACHE / "peers"
REQUIREMENTS = {"Chroma": "chromadb==1.5.9", "LanceDB": "lancedb==0.40.0", "hnswlib": "hnswlib==0.8.0"}
_HANDLER_REQUIREMENTS = ("aiohttp==3.14.5", "numpy")
_NUM_LINES = 3


class NotInstalled(Exception):
    """pip could not install a peer; the message ends with what pip said."""


def installed(name: str, directory: Path = PEERS / "environment") -> Path:
    """Return the environment's folder of programs; install the peer there if it is missing.

    hnswlib is compiled, so it needs a C++ compiler.
    """
    programs, requirement = directory / "bin", REQUIREMENTS[name]
    done = directory / f"has-{requirement}"
    if not done.exists():
        if not (programs / "pip").exists():
            _run(name, [sys.executable, "-m", "venv", str(directory)])
        pip = [str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        _run(name, [*pip, requirement, *_HANDLER_REQUIREMENTS])
        done.touch()
    return programs


def _run(name: str, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        said = "; ".join(error.stdout.strip().splitlines()[-_NUM_LINES:])
        raise NotInstalled(f"{name} cannot be installed: {said}") from error
