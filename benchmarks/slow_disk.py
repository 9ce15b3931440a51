"""How much later uploads are found if each fsync takes 5 ms longer."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio
from benchmarks.freshness import Load, Spread
from benchmarks.indexes.searched_index import Layout
from benchmarks.processes.generated_encoder import FINGERPRINT
from benchmarks.processes.services import Program, lay_index, open_site, running, running_broker
from benchmarks.segment_tax import LIVING
from event_log.kafka.publisher import KafkaPublisher

NAME = "slow_disk"
MAX_RATIO = 1.3
TARGET = f"freshness p50 with 5 ms more a fsync ÷ without ≤ {MAX_RATIO}"
_UPLOADS_PER_SECOND = 100.0
_CONSUMERS = {
    "as it is": "benchmarks.processes.generated_consumer",
    "5 ms more a fsync": "benchmarks.processes.slow_consumer",
}


def measure(*, quick: bool) -> Figure:
    """Measure two sites that take turns: same uploads, queries and programs, but for the fsync of one.

    The encoder takes no time, so that the disk's share is not hidden. Both indexes have four shards, and
    every commit adds contents to all of them.
    """
    num_rows, rounds, window = (1_000, 2, 1.0) if quick else (20_000, MIN_ROUNDS, 5.0)
    pictures = [str(number).encode() for number in range(1_000)]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka = stack.enter_context(running_broker(directory))
        publisher = stack.enter_context(closing(KafkaPublisher(kafka)))
        loads: list[Load] = []
        for number, module in enumerate(_CONSUMERS.values()):
            site = open_site(kafka, directory, f"disk-{number}")
            lay_index(site, Layout(num_rows, segment_shares=LIVING), FINGERPRINT)
            program = Program(module, "benchmarks.processes.generated_query_service")
            loads.append(Load(stack.enter_context(running(site, program)), publisher, pictures))
        samples: list[list[list[float]]] = [[], []]
        for _ in range(rounds + 1):
            for found, load in zip(samples, loads, strict=True):
                found.append(load.sample(_UPLOADS_PER_SECOND, window))
    return _figure([Spread.of(found[1:]) for found in samples])  # the first round warms up


def _figure(spreads: list[Spread]) -> Figure:
    usual, slow = spreads
    ratio = median_ratio(slow.medians, usual.medians)
    value = {"ratio": round(ratio.median, 3), "p50": usual.p50, "p50_slow": slow.p50}
    sides = [dict(disk=disk, **spread.as_dict()) for disk, spread in zip(_CONSUMERS, spreads, strict=True)]
    details = {"ratio": ratio.as_dict(), "uploads_per_second": _UPLOADS_PER_SECOND, "seconds": sides}
    rows = [("disk", "p50 s", "p99 s")]
    rows += [(d, f"{s.p50:.3f}", f"{s.p99:.3f}") for d, s in zip(_CONSUMERS, spreads, strict=True)]
    return Figure(
        NAME, value, TARGET, ratio.median <= MAX_RATIO, details, [*rows, ("slow ÷ usual", str(ratio), "")]
    )
