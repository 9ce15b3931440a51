"""`python -m benchmarks.flame_graph FILE`: draw what the query service does under vector queries.

One client asks an index of 100,000 rows, one query at a time. py-spy looks at this process 250 times a
second and draws the thread that holds Python's lock. Install py-spy into the same environment before
(`pip install py-spy`); it needs the right to look at a process (root, or CAP_SYS_PTRACE).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.clients.served_queries import Clients, NoEncoder, clients_of, serving, vector_body
from benchmarks.indexes.searched_index import Layout, open_index, queries_of

_SECONDS, _LOOKS_PER_SECOND = 20, 250
_NUM_QUERIES, _REPETITIONS = 480, 8
_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')


def main(path: Path) -> None:
    """Draw the graph into the file."""
    queries = [vector_body(query, modality="image", k=10) for query in queries_of("text", _NUM_QUERIES)]
    bodies = [json.dumps(query) for query in queries] * _REPETITIONS
    with serving(NoEncoder(), open_index(Layout(100_000))) as port, clients_of(port) as clients:
        _ask(clients, bodies[:_NUM_QUERIES])  # a warm-up
        with subprocess.Popen(_recording(path)) as recording:
            while recording.poll() is None:
                _ask(clients, bodies)
    if recording.returncode != 0:
        raise SystemExit(f"py-spy ended with {recording.returncode}")
    path.write_text(with_title(path.read_text(), "The query service under vector queries, one at a time"))


def _ask(clients: Clients, bodies: list[str]) -> None:
    clients.prepare([bodies])
    clients.ask()


def _recording(path: Path) -> list[str]:
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        raise SystemExit("py-spy is missing: pip install py-spy")
    times = ["--duration", str(_SECONDS), "--rate", str(_LOOKS_PER_SECOND)]
    return [str(program), "record", "--gil", "--pid", str(os.getpid()), *times, "--output", str(path)]


def with_title(svg: str, title: str) -> str:
    """Replace py-spy's title, which is its own command with paths of this machine."""
    return _TITLE.sub(lambda found: found[1] + title, svg)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
