"""The demo as a process, and the commands that a page of the documents gives, run beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliptide.searching.query_client import QueryClient
from cliptide.searching.searchable import wait_until_covered

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """A demo with a small catalogue. `variables` are those that it prints for other terminals."""

    variables: Mapping[str, str]
    programs: Path

    @property
    def client(self) -> QueryClient:
        return QueryClient(self.variables["CLIPTIDE_QUERY_URL"])

    def run(self, commands: str, folder: Path, **variables: str) -> str:
        """Run the commands in the folder, as a person does in a terminal. Return what they print."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env={**os.environ, **self.variables, "PATH": path, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait_for(self, output: str) -> None:
        """Wait until everything that the output names by `min_offsets` is searchable."""
        offsets: dict[str, int] = {}
        for line in re.findall(r"^\{.*\}$", output, re.MULTILINE):
            offsets |= json.loads(line)["min_offsets"]
        wait_until_covered(self.client, offsets, timeout_seconds=PATIENCE_SECONDS)

    def contents_of(self, source: str) -> dict[str, dict[str, Any]]:
        """Return the contents of one source by their ids."""
        condition = {"field": "source", "equals": source}
        answer = self.client.search({"text": "anything", "k": 100, "filter": {"must": [condition]}})
        return {hit["content_id"]: hit for kind in answer["results"].values() for hit in kind["hits"]}


@contextmanager
def running_demo() -> Iterator[RunningDemo]:
    command = [sys.executable, "-m", "cliptide.demo", "--port", "0", "--num-images", "40", "--num-texts", "5"]
    with (
        tempfile.TemporaryDirectory(prefix="cliptide-programs-") as programs,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            yield RunningDemo(_variables_shown_by(process), _write_programs(Path(programs)))
        finally:
            process.send_signal(signal.SIGINT)


def _variables_shown_by(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return dict(re.findall(r"^  export (\w+)=(\S+)$", "".join(lines), re.MULTILINE))
    raise AssertionError(f"the demo ended: {''.join(lines)}")


def _write_programs(folder: Path) -> Path:
    """Write what an activated environment has: `python` and `cliptide`, both of this Python."""
    for name, module in (("python", ""), ("cliptide", "-m cliptide")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        program.chmod(0o755)
    return folder


def commands_of(page: Path) -> str:
    """Return the first block of a page that names no language: its commands."""
    return _block(r"^```\n(.*?)^```$", page)


def commands_for(language: str, page: Path) -> str:
    """Return the block of a page that follows the line which names the language."""
    return _block(rf"^{language}\b[^\n]*:\n\n```sh\n(.*?)^```$", page)


def _block(pattern: str, page: Path) -> str:
    block = re.search(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None, page
    return block[1]
