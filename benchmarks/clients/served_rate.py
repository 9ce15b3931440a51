"""How many vector queries a second the query service answers, and with which recall."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.clients.served_queries import Clients, NoEncoder, batch_body, clients_of, serving, vector_body
from benchmarks.figure import MIN_ROUNDS, seconds_of
from benchmarks.indexes.searched_index import Layout, open_index, queries_of, recall
from clip_index.content import Embeddings, Modality
from clip_index.searching.searcher import Searcher

MODALITY: Modality = "image"
K, BATCH = 10, 16
NUM_CLIENTS = {1: 16, BATCH: 4}  # number of clients, by the number of queries in each request


@dataclass(frozen=True, slots=True)
class Rate:
    """Queries a second, asked singly and in batches, and the recall of the answers."""

    num_rows: int
    recall: float
    single: float
    of_16: float


def measure_rate(*, quick: bool) -> Rate:
    """Measure single queries and batches in turn. Service and clients share the machine's cores."""
    num_queries, rounds = (64, 1) if quick else (960, MIN_ROUNDS)
    layout = Layout(2_000 if quick else 1_000_000)
    queries, reader = queries_of("text", num_queries), open_index(layout)
    assert reader.searcher is not None
    bodies = {size: bodies_of_clients(queries, size) for size in NUM_CLIENTS}
    rates: dict[int, list[float]] = {size: [] for size in NUM_CLIENTS}
    with serving(NoEncoder(), reader) as port, clients_of(port) as clients:
        for _ in range(rounds + 1):
            for size in NUM_CLIENTS:
                rates[size].append(num_queries / _seconds(clients, bodies[size]))
    single, of_16 = (round(statistics.median(rates[size][1:])) for size in NUM_CLIENTS)
    return Rate(layout.num_rows, _recall(layout, reader.searcher, queries[:BATCH]), single, of_16)


def bodies_of_clients(queries: Embeddings, size: int) -> list[list[str]]:
    """Divide the queries among the clients, with `size` queries in each request."""
    vectors = [vector_body(query, modality=MODALITY, k=K) for query in queries]
    batches = [vectors[first : first + size] for first in range(0, len(vectors), size)]
    requests = [json.dumps(batch[0]) if size == 1 else batch_body(batch) for batch in batches]
    return [requests[client :: NUM_CLIENTS[size]] for client in range(NUM_CLIENTS[size])]


def _seconds(clients: Clients, bodies: Sequence[Sequence[str]]) -> float:
    clients.prepare(bodies)
    return seconds_of(clients.ask)


def _recall(layout: Layout, searcher: Searcher, queries: Embeddings) -> float:
    """Return the share of the exact k best rows that the answers to a batch contain."""
    answers = searcher.search(queries, k=K, modality=MODALITY)
    return round(recall(answers, queries @ layout.rows().T, K), 4)
