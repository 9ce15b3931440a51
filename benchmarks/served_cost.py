"""The CPU time that serving a vector query adds to the search itself, beside what bare aiohttp takes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from aiohttp import web

from benchmarks.clients.served_queries import (
    Clients,
    NoEncoder,
    batch_body,
    clients_of,
    serving,
    serving_app,
    vector_body,
)
from benchmarks.clients.served_rate import Rate, measure_rate
from benchmarks.data import DIMENSION
from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio
from benchmarks.indexes.searched_index import Layout, open_index, queries_of
from clip_index.content import Embeddings
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import Hit

NAME = "served_cost"
MAX_SINGLE, MAX_OF_16, MIN_RATE, MIN_RECALL = 2.5, 0.8, 1000, 0.95
K = 10


class TimedSearcher(Searcher):
    """Adds up the CPU time of its searches. A search runs in the thread that calls it."""

    seconds = 0.0

    def search(self, queries: Embeddings, **options: Any) -> list[list[Hit]]:
        began = time.thread_time()
        try:
            return super().search(queries, **options)
        finally:
            self.seconds += time.thread_time() - began


def measure(*, quick: bool) -> Figure:
    """Measure the CPU time of this process minus that of its searches ÷ that of bare aiohttp, for each query.

    Another process asks. Everything that runs in a query service counts: the event loop, the workers,
    the thread that looks for new generations, the garbage collector. The same rounds measure what
    aiohttp alone costs, with a handler that parses the same body and answers nothing.
    """
    num_queries, rounds = (64, 2) if quick else (480, MIN_ROUNDS)
    queries = [vector_body(query, modality="image", k=K) for query in queries_of("text", num_queries)]
    bodies = {
        1: [json.dumps(query) for query in queries],
        16: [batch_body(queries[first : first + 16]) for first in range(0, num_queries, 16)],
    }
    layout = Layout(2_000 if quick else 100_000)
    reader = open_index(layout)
    searcher = _time_searches(reader)
    costs: dict[int, list[float]] = {1: [], 16: []}
    bare: list[float] = []
    with ExitStack() as stack:
        clients = stack.enter_context(clients_of(stack.enter_context(serving(NoEncoder(), reader))))
        others = stack.enter_context(clients_of(stack.enter_context(serving_app(_bare_app()))))
        for _ in range(rounds + 1):
            for size in costs:
                searcher.seconds = 0.0
                spent = _cpu_seconds(clients, bodies[size]) - searcher.seconds
                costs[size].append(spent / num_queries * 1e6)
            bare.append(_cpu_seconds(others, bodies[1]) / num_queries * 1e6)
    sides = {"single_us": costs[1][1:], "of_16_us": costs[16][1:], "bare_us": bare[1:]}
    return _figure(layout, sides, measure_rate(quick=quick))


def _time_searches(reader: IndexReader) -> TimedSearcher:
    assert reader.searcher is not None
    reader.searcher = searcher = TimedSearcher(reader.searcher.shard_views, DIMENSION)
    return searcher


def _bare_app() -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        json.loads(await request.read())
        return web.Response(text="{}", content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/search", answer)
    return app


def _cpu_seconds(clients: Clients, bodies: Sequence[str]) -> float:
    """Return the CPU time of all threads of this process while one client asks."""
    clients.prepare([bodies])
    began = time.process_time()
    clients.ask()
    return time.process_time() - began


def _figure(layout: Layout, sides: Mapping[str, list[float]], rate: Rate) -> Figure:
    single = median_ratio(sides["single_us"], sides["bare_us"])
    of_16 = median_ratio(sides["of_16_us"], sides["bare_us"])
    is_cheap = single.median <= MAX_SINGLE and of_16.median <= MAX_OF_16
    is_fast = min(rate.single, rate.of_16) >= MIN_RATE and rate.recall >= MIN_RECALL
    return Figure(
        NAME,
        {
            "single": round(single.median, 2),
            "of_16": round(of_16.median, 2),
            "single_per_second": rate.single,
            "of_16_per_second": rate.of_16,
        },
        f"≤ {MAX_SINGLE:g} × and ≤ {MAX_OF_16:g} × bare aiohttp; ≥ {MIN_RATE:,} queries/s at 1 M rows",
        is_cheap and is_fast,
        {
            "rows": layout.num_rows,
            "single": single.as_dict(),
            "of_16": of_16.as_dict(),
            **{name: [round(cost, 1) for cost in costs] for name, costs in sides.items()},
            "rate": asdict(rate),
        },
        [
            (
                "queries a request",
                "÷ bare aiohttp",
                f"queries/s, {rate.num_rows:,} rows, recall {rate.recall}",
            ),
            ("1", str(single), f"{rate.single:.0f}"),
            ("16", str(of_16), f"{rate.of_16:.0f}"),
        ],
    )
