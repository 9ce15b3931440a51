"""What serving a vector query costs in CPU time beyond the search itself."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from aiohttp import web

from benchmarks.data import DIMENSION
from benchmarks.figure import MIN_ROUNDS, Figure
from benchmarks.searched_index import Layout, open_index, queries_of
from benchmarks.served_queries import Clients, clients_of, serving, serving_app
from clip_index.content import Embeddings
from clip_index.encoder import EncoderFingerprint, Prepared, PreparedImage, PreparedText
from clip_index.index_reader import IndexReader
from clip_index.searcher import Hit, Searcher

NAME = "served_cost"
MAX_SINGLE, MAX_OF_16, K = 200.0, 60.0, 10


class NoEncoder:
    """Has the generated index's fingerprint, and ends the figure should a vector query be encoded."""

    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")

    def prepare_image(self, data: bytes) -> PreparedImage:
        raise AssertionError("a vector query needs no encoder")

    def prepare_text(self, text: str) -> PreparedText:
        raise AssertionError("a vector query needs no encoder")

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        raise AssertionError("a vector query needs no encoder")


class TimedSearcher(Searcher):
    """Adds up the CPU time of its searches, which run in the threads that call them."""

    seconds = 0.0

    def search(self, queries: Embeddings, **options: Any) -> list[list[Hit]]:
        began = time.thread_time()
        try:
            return super().search(queries, **options)
        finally:
            self.seconds += time.thread_time() - began


def measure(*, quick: bool) -> Figure:
    """CPU time of this process while another asks, less that of its searches, in microseconds a query.

    All that runs in a query service is charged: the event loop, the workers, the thread that
    looks for new generations, the collector of garbage. Beside it, in the same rounds, what
    aiohttp itself costs: a handler that parses the same body and answers nothing.
    """
    num_queries, rounds = (64, 2) if quick else (480, MIN_ROUNDS)
    queries = [_query(query) for query in queries_of("text", num_queries)]
    bodies = {
        1: [json.dumps(query) for query in queries],
        16: [json.dumps({"queries": queries[first : first + 16]}) for first in range(0, num_queries, 16)],
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
    return _figure(layout, costs[1][1:], costs[16][1:], bare[1:])


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
    """CPU time of all threads of this process while one client asks."""
    clients.prepare([bodies])
    began = time.process_time()
    clients.ask()
    return time.process_time() - began


def _figure(layout: Layout, single: list[float], of_16: list[float], bare: list[float]) -> Figure:
    sides = {"single_us": single, "of_16_us": of_16, "bare_us": bare}
    medians = {name: round(statistics.median(costs), 1) for name, costs in sides.items()}
    return Figure(
        NAME,
        medians,
        f"≤ {MAX_SINGLE:g} µs and ≤ {MAX_OF_16:g} µs; ≥ 1,000 queries/s at 1 M rows",
        False,  # 1 M rows were not measured
        {
            "rows": layout.num_rows,
            **{name: [round(cost, 1) for cost in costs] for name, costs in sides.items()},
            "missed": "queries/s at 1 M rows are not measured",
        },
        [
            ("queries a request", "µs a query"),
            ("1", f"{medians['single_us']:.0f}"),
            ("16", f"{medians['of_16_us']:.0f}"),
            ("1, aiohttp alone", f"{medians['bare_us']:.0f}"),
        ],
    )


def _query(query: Embeddings) -> dict[str, Any]:
    return {"vector": [round(float(x), 7) for x in query], "modality": "image", "k": K}
