"""What a query and an upload cost here and in other systems, through HTTP, at equal recall, in one run."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clients.served_queries import Clients, clients_of
from benchmarks.data import KINDS, Kind, draw_rows, draw_space
from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, median_ratio
from benchmarks.indexes.searched_index import SEED, Layout, queries_of
from benchmarks.peer_services.environment import REQUIREMENTS, NotInstalled, installed
from benchmarks.peer_services.own import NAME as OWN
from benchmarks.peer_services.own import running_own
from benchmarks.peer_services.servers import NAMES, kept_rows, running_peer
from benchmarks.peer_services.system import PATIENCE_SECONDS, System, ask, wait_until_quiet
from benchmarks.processes.generated_encoder import NUM_ROWS
from benchmarks.processes.process_figures import cpu_seconds
from clip_index.content import Embeddings

NAME = "peers"
MIN_RECALL, MAX_OF_SERVER, MAX_OF_FLOOR = 0.99, 0.6, 2.5
TARGET = f"CPU of a query ≤ {MAX_OF_SERVER} × the better server, ≤ {MAX_OF_FLOOR} × hnswlib"
K = 10
_SERVERS, _FLOOR = ("Chroma", "LanceDB"), "hnswlib"
_ROWS_OF_APPEND = 100
_LOOK_SECONDS = 0.005
_TIE = 1e-4
_INGESTED_KIND: Kind = "clustered"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rows: int = 50_000
    rounds: int = MIN_ROUNDS
    queries: int = 100
    calibrating: int = 200
    appends: int = 20


QUICK = Size(2_000, 2, 10, 20, 2)


@dataclass(slots=True)
class Side:
    """What one system showed on one kind of data. CPU times are of each round, of a query."""

    effort: int = 0
    recall: float = 0.0
    cpu_seconds: list[float] = field(default_factory=list)
    append_cpu_seconds: float | None = None
    found_seconds: list[float] = field(default_factory=list)
    num_looks: int = 0

    @property
    def is_comparable(self) -> bool:
        return self.recall >= MIN_RECALL

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "effort": self.effort,
            "recall": round(self.recall, 4),
            "cpu_ms_a_query": round(statistics.median(self.cpu_seconds) * 1e3, 3),
        }
        if self.append_cpu_seconds is not None:
            shown["cpu_ms_a_hundred_rows"] = round(self.append_cpu_seconds * 1e3, 1)
            shown["append_to_found_ms"] = round(statistics.median(self.found_seconds) * 1e3, 1)
        return shown


Sides = dict[str, Side]


def measure(*, quick: bool) -> Figure:
    """Ask each system in turn, on both kinds of data; let them take rows on `clustered` data.

    The CPU time of a query is that of the process that answers it. That of 100 rows is of the processes
    that take them: this project's consumer with its merges (the broker is not counted, and vectors come
    from an encoder that takes no time), or the peer's server.
    """
    present, missing = _install()
    return measure_beside(present, missing, QUICK if quick else Size())


def measure_beside(peers: Sequence[str], missing: Mapping[str, str], size: Size) -> Figure:
    """Measure this project beside the peers that are installed; say why the others are missing."""
    load = os.getloadavg()[0]
    found = {kind: _measure_kind(kind, peers, size) for kind in KINDS}
    return _figure(size, found, missing, (load, os.getloadavg()[0]))


def _install() -> tuple[list[str], dict[str, str]]:
    """Install the peers. Return the names of those that are there, and why the others are not."""
    missing = {}
    for name in NAMES:
        try:
            installed(name)
        except NotInstalled as error:
            missing[name] = str(error)
    return [name for name in NAMES if name not in missing], missing


def _measure_kind(kind: Kind, peers: Sequence[str], size: Size) -> Sides:
    layout = Layout(size.rows, kind=kind)
    calibrating = queries_of("text", size.calibrating, kind)
    asked = queries_of("text", size.calibrating + size.queries, kind)[size.calibrating :]
    with _running(layout, peers) as systems:
        judge = Judge(layout.rows(), calibrating)
        sides = {name: judge.calibrate(system) for name, system in systems.items()}
        with ExitStack() as stack:
            clients = {
                name: stack.enter_context(clients_of(system.port, system.path))
                for name, system in systems.items()
            }
            for number in range(size.rounds + 1):
                for name, system in systems.items():
                    seconds = _cost_of_query(system, clients[name], asked)
                    if number > 0:  # the first round warms up
                        sides[name].cpu_seconds.append(seconds)
        if kind == _INGESTED_KIND:
            _append_to_all(systems, sides, size)
    return sides


@contextmanager
def _running(layout: Layout, peers: Sequence[str]) -> Iterator[dict[str, System]]:
    for name in peers:
        kept_rows(name, layout)  # now, because nothing is measured yet
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        systems: dict[str, System] = {OWN: stack.enter_context(running_own(layout, directory))}
        for name in peers:
            systems[name] = stack.enter_context(running_peer(name, layout, directory))
        yield systems


class Judge:
    """Knows the best rows of some queries by an exact scan. Rows that tie with the k-th count as found."""

    def __init__(self, rows: Embeddings, queries: Embeddings) -> None:
        self._queries = queries
        self._scores: NDArray[np.float32] = queries @ rows.T
        self._least = np.partition(self._scores, -K, axis=1)[:, -K] - _TIE

    def calibrate(self, system: System) -> Side:
        """Raise the effort until recall@10 is 0.99, or there is no greater effort."""
        side = Side()
        for effort in system.efforts:
            system.set_effort(effort)
            side.effort, side.recall = effort, self.recall(system)
            if side.is_comparable:
                break
        return side

    def recall(self, system: System) -> float:
        num_found = 0
        for query, scores, least in zip(self._queries, self._scores, self._least, strict=True):
            num_found += int((scores[ask(system, query, K)] >= least).sum())
        return num_found / (K * len(self._queries))


def _cost_of_query(system: System, clients: Clients, queries: Embeddings) -> float:
    """Return the CPU seconds of one query, of one client that asks one after another."""
    clients.prepare([[system.body(query, K) for query in queries]])
    before = cpu_seconds(system.query_pid)
    clients.ask()
    return (cpu_seconds(system.query_pid) - before) / len(queries)


def _append_to_all(systems: Mapping[str, System], sides: Sides, size: Size) -> None:
    """Let the systems take 100 rows each in turn, until all have taken all."""
    rows = draw_rows(draw_space(SEED), "image", NUM_ROWS, SEED + 1)
    before = {}
    for name, system in systems.items():
        wait_until_quiet(system.query_pid)
        before[name] = system.ingest_cpu_seconds()
    for append in range(size.appends):
        first = append * _ROWS_OF_APPEND
        some = rows[first : first + _ROWS_OF_APPEND]
        for name, system in systems.items():
            _append(system, sides[name], size.rows + first, some)
    for name, system in systems.items():
        system.finish()
        wait_until_quiet(system.query_pid)
        num_searches = sides[name].num_looks if system.ingest_pid == system.query_pid else 0
        searching = num_searches * statistics.median(sides[name].cpu_seconds)
        spent = system.ingest_cpu_seconds() - before[name] - searching
        sides[name].append_cpu_seconds = spent / size.appends


def _append(system: System, side: Side, first: int, rows: Embeddings) -> None:
    """Note the seconds from handing rows over to the first answer that has the last one, and the looks."""
    numbers = range(first, first + len(rows))
    began = time.perf_counter()
    system.append(numbers, rows)
    while True:
        side.num_looks += 1
        if numbers[-1] in ask(system, rows[-1], K):
            break
        if time.perf_counter() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"{system.name} has not found an appended row")
        time.sleep(_LOOK_SECONDS)
    side.found_seconds.append(time.perf_counter() - began)


def _figure(
    size: Size, found: Mapping[Kind, Sides], missing: Mapping[str, str], load: tuple[float, float]
) -> Figure:
    ratios = {kind: _ratios(sides) for kind, sides in found.items()}
    worst = {
        name: round(max(of_kind[name].median for of_kind in ratios.values()), 2)
        for name in ("of_server", "of_floor")
        if all(name in of_kind for of_kind in ratios.values())
    }
    is_recall_held = all(sides[OWN].is_comparable for sides in found.values())
    holds = (
        not missing
        and is_recall_held
        and worst.get("of_server", np.inf) <= MAX_OF_SERVER
        and worst.get("of_floor", np.inf) <= MAX_OF_FLOOR
    )
    return Figure(
        NAME,
        worst or "no peer could be compared",
        TARGET,
        bool(holds),
        {
            "rows": size.rows,
            "recall_at_least": MIN_RECALL,
            "not_installed": dict(missing),
            "peers": REQUIREMENTS,
            "load_average": [round(one, 1) for one in load],
            "ratios": {
                kind: {name: ratio.as_dict() for name, ratio in of_kind.items()}
                for kind, of_kind in ratios.items()
            },
            "systems": {
                kind: {name: side.as_dict() for name, side in sides.items()} for kind, sides in found.items()
            },
        },
        _table(found, missing),
    )


def _ratios(sides: Sides) -> dict[str, Ratio]:
    """Compare the CPU time of a query with that of the cheaper server and of the floor, round by round."""
    own = sides[OWN].cpu_seconds
    servers = [sides[name] for name in _SERVERS if name in sides and sides[name].is_comparable]
    ratios = {}
    if servers:
        better = min(servers, key=lambda side: statistics.median(side.cpu_seconds))
        ratios["of_server"] = median_ratio(own, better.cpu_seconds)
    if _FLOOR in sides and sides[_FLOOR].is_comparable:
        ratios["of_floor"] = median_ratio(own, sides[_FLOOR].cpu_seconds)
    return ratios


def _table(found: Mapping[Kind, Sides], missing: Mapping[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("system", "data", "recall@10", "CPU ms a query", "CPU ms for 100 rows", "append to found, ms")
    ]
    for kind, sides in found.items():
        for name, side in sides.items():
            shown = side.as_dict()
            ingest = [str(shown.get(key, "")) for key in ("cpu_ms_a_hundred_rows", "append_to_found_ms")]
            rows.append((name, kind, f"{side.recall:.4f}", str(shown["cpu_ms_a_query"]), *ingest))
    rows += [(name, "not measured", reason, "", "", "") for name, reason in missing.items()]
    return rows
