"""Whatever the OpenAPI document allows, and much that it forbids, is asked; answers must be as it says.

It is the exact document, with the rules between fields that the served one leaves out for generators.
`make fuzz-api` asks long; the suite asks a little of each operation. A consumer runs behind the
service, so that uploads become searchable.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.contract.document.openapi import build_document
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from query_api.http.guards.rate_limit import RateLimit
from query_api.route_table import ROUTES
from schemas.events import ImageContent
from tests.consumer.running import PATIENCE_SECONDS, World, upload
from tests.integration.pipeline import build_service

NUM_EXAMPLES = os.environ.get("CLIPTIDE_FUZZ_EXAMPLES")
HOW_LONG = ("--phases=fuzzing", "--max-examples=10")
if NUM_EXAMPLES:
    HOW_LONG = ("--phases=examples,coverage,fuzzing,stateful", f"--max-examples={NUM_EXAMPLES}")
CONFIG = Path(__file__).with_name("schemathesis.toml")
CHECKS = Path(__file__).with_name("fuzz_checks.py")
DOCUMENT = "exact.json"
OPTIONS = (
    "--continue-on-failure",
    "--exclude-path=/v1/live",  # its answer has no end
    "--exclude-path=/v1/query_sample",  # it needs a key, which no other route does here
    "--request-timeout=60",
    "--suppress-health-check=too_slow",  # how fast cases are made is the machine's business
    "--no-color",
    "--generation-database=none",  # it would begin with the rules that it gave up
)
FIRST_SEED = int(os.environ.get("CLIPTIDE_FUZZ_SEED", "1"))
NUM_SEEDS = 20
FINDING = re.compile(r"^_+ (.+?) _+$", re.MULTILINE)
# schemathesis 4.32 leaves an operation when it has drawn rules that no array can follow: its issue 4282.
GAVE_UP = re.compile(r"^_+ (.+?) _+\nSchema Error\n\nCannot generate an array with ", re.MULTILINE)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in a thread of its own, and a consumer."""
    world = World(tmp_path_factory.mktemp("fuzzed") / "index", num_partitions=2)
    has_begun, stopping = threading.Event(), asyncio.Event()
    places: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        limit = RateLimit(1e6, 1_000_000)
        app = build_service(world, max_body_bytes=1 << 20, rate_limit=limit, max_wait_seconds=2.0)
        async with listening(app, Address("127.0.0.1", 0), ConnectionLimits()) as place:
            places.append(f"http://{place}")
            has_begun.set()
            await stopping.wait()

    with world.running():
        world.wait_committed(world.publish(upload("text")))
        world.wait_committed(world.publish(upload("picture", ImageContent(draw_picture(1)))))
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="fuzzed service")
        thread.start()
        assert has_begun.wait(PATIENCE_SECONDS)
        yield places[0]
        loop.call_soon_threadsafe(stopping.set)
        thread.join(PATIENCE_SECONDS)
        loop.close()


@pytest.mark.timeout(3600)
def test_answers_are_as_the_document_says(address: str, tmp_path: Path) -> None:
    num_cases = 0
    operations: list[str] = []  # none: all
    document = build_document(ROUTES, needs_key=False, dimension=HashEncoder().dimension)
    (tmp_path / DOCUMENT).write_text(json.dumps(document))
    for seed in range(FIRST_SEED, FIRST_SEED + NUM_SEEDS):
        outcome = _ask(address, tmp_path, seed, operations)
        num_cases += sum(map(int, re.findall(r"(\d+) generated", outcome.stdout)))
        operations = GAVE_UP.findall(outcome.stdout)
        if not operations:
            break
        assert FINDING.findall(outcome.stdout) == operations, outcome.stdout
        assert f"Schema Error: {len(operations)}\n" in outcome.stdout, outcome.stdout
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    print(f"{num_cases} cases")  # noqa: T201 (for whoever asks long, with -s)
    assert num_cases > 100


def _ask(address: str, directory: Path, seed: int, operations: list[str]) -> subprocess.CompletedProcess[str]:
    """Ask the operations, or all; what schemathesis gave up is to be asked again with another seed."""
    asking = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    which = [f"--include-name={name}" for name in operations]
    return subprocess.run(
        [*asking, DOCUMENT, f"--url={address}", *OPTIONS, *HOW_LONG, f"--seed={seed}", *which],
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(CHECKS)},
        capture_output=True,
        text=True,
        check=False,
    )
