"""`python -m tools.test_side_by_side`: run the tests as two processes of pytest, side by side.

Most suites wait for servers, disks and timeouts, so two at a time take little more than half as long. The
suites of the first process are named here, all others run in the second one. What a process printed is
shown when it has ended. The exit code is 1 if one of them failed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
FIRST = ("browser", "clients", "hostile", "opensearch_engine", "query_api", "schemas", "service")


def arguments_of_halves() -> tuple[list[str], list[str]]:
    """Return the paths that each process is given. Together they are all suites, each of them once."""
    suites = [path for path in sorted(TESTS.iterdir()) if path.is_dir() and any(path.rglob("test_*.py"))]
    modules = sorted(TESTS.glob("test_*.py"))
    first = [path for path in suites if path.name in FIRST]
    second = [path for path in suites if path.name not in FIRST]
    return [str(path) for path in (*first, *modules)], [str(path) for path in second]


def main() -> int:
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        halves = [_start(Path(directory) / str(n), paths) for n, paths in enumerate(arguments_of_halves())]
        for process, output in halves:
            failed |= bool(process.wait())
            sys.stdout.write(output.read_text("utf-8", "replace"))
            sys.stdout.flush()
    return int(failed)


def _start(output: Path, paths: Sequence[str]) -> tuple[subprocess.Popen[bytes], Path]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    with output.open("wb") as file:  # not a pipe: a full one would stop the other process
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT), output


if __name__ == "__main__":
    sys.exit(main())
