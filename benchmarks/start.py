"""The CPU time that each service takes until it is ready, with a production-size model."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.clip_models import write_production_model
from benchmarks.figure import Figure
from benchmarks.processes.process_figures import cpu_seconds
from benchmarks.processes.services import Program, encoder_environment, open_site, running, running_broker

NAME = "start"
MAX_SECONDS = 10.0


def measure(*, quick: bool) -> Figure:
    """Start both services on an empty index, several times."""
    seconds: dict[str, list[float]] = {"consumer": [], "query": []}
    with tempfile.TemporaryDirectory() as name, running_broker(Path(name)) as kafka:
        directory = Path(name)
        program = Program(environment=encoder_environment(write_production_model(directory)))
        for number in range(1 if quick else 3):
            with running(open_site(kafka, directory, f"start-{number}"), program) as services:
                assert services.query_service is not None
                seconds["consumer"].append(cpu_seconds(services.consumer.pid))
                seconds["query"].append(cpu_seconds(services.query_service.pid))
    value = {name: round(statistics.median(of_each), 1) for name, of_each in seconds.items()}
    return Figure(
        NAME,
        value,
        f"≤ {MAX_SECONDS:g} s of CPU time",
        max(value.values()) <= MAX_SECONDS,
        {"rounds": {name: [round(one, 2) for one in of_each] for name, of_each in seconds.items()}},
        [("service", "CPU seconds"), *((name, f"{one:.1f}") for name, one in value.items())],
    )
