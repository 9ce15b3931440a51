"""The memory of both services with a production-size model: with an empty index, and for a million rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.clip_models import write_production_model
from benchmarks.figure import Figure
from benchmarks.indexes.searched_index import Layout
from benchmarks.processes.process_figures import anonymous_bytes
from benchmarks.processes.services import (
    Program,
    Running,
    encoder_environment,
    lay_index,
    open_site,
    running,
    running_broker,
)
from clip_index.encoder.open_clip import load_encoder

NAME = "memory"
MAX_EMPTY_MB, MAX_MB_PER_MILLION = 700, 60
TARGET = f"≤ {MAX_EMPTY_MB} MB, and ≤ {MAX_MB_PER_MILLION} MB a million rows"


def measure(*, quick: bool) -> Figure:
    """Measure what no file backs: pages of the index are shared, and the system takes them back.

    Both services share their weights, as in the compose file. `own_weights` is what they hold otherwise.
    """
    num_rows = 2_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as name, running_broker(Path(name)) as kafka:
        directory = Path(name)
        settings = write_production_model(directory)
        environment = encoder_environment(settings)
        with running(open_site(kafka, directory, "own"), Program(environment=environment)) as services:
            own_weights = _megabytes(services)
        shared = {"CLIPTIDE_ENCODER__SHARED_WEIGHTS": str(directory / "shared-weights")}
        program = Program(environment=environment | shared)
        with running(open_site(kafka, directory, "empty"), program) as services:
            empty = _megabytes(services)
        site = open_site(kafka, directory, "filled")
        lay_index(site, Layout(num_rows), load_encoder(settings).fingerprint)
        with running(site, program) as services:
            filled = _megabytes(services)
    per_million = {name: (filled[name] - empty[name]) * 1e6 / num_rows for name in empty}
    return _figure(empty, own_weights, per_million, num_rows)


def _megabytes(services: Running) -> dict[str, float]:
    assert services.query_service is not None
    processes = {"consumer": services.consumer, "query": services.query_service}
    return {name: anonymous_bytes(process.pid) / 1e6 for name, process in processes.items()}


def _figure(
    empty: Mapping[str, float],
    own_weights: Mapping[str, float],
    per_million: Mapping[str, float],
    num_rows: int,
) -> Figure:
    return Figure(
        NAME,
        {
            **{f"{name}_empty": round(megabytes) for name, megabytes in empty.items()},
            **{f"{name}_per_million": round(megabytes) for name, megabytes in per_million.items()},
        },
        TARGET,
        max(empty.values()) <= MAX_EMPTY_MB and max(per_million.values()) <= MAX_MB_PER_MILLION,
        {"rows": num_rows, "own_weights": {name: round(each) for name, each in own_weights.items()}},
        [
            ("service", "MB, empty", "with own weights", "MB a million rows"),
            *(
                (name, f"{empty[name]:.0f}", f"{own_weights[name]:.0f}", f"{per_million[name]:.0f}")
                for name in empty
            ),
        ],
    )
