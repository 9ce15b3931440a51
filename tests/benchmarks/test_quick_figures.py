"""The figures of whole services run in their quick form. No number is judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.__main__ import as_json, find_figures
from benchmarks.clients.served_rate import bodies_of_clients


@pytest.mark.usefixtures("embedded_broker")
@pytest.mark.broker
@pytest.mark.encoder
@pytest.mark.parametrize(
    "name",
    ["freshness", "hostile", "intake", "kept_under_ingest", "pipeline", "republish", "slow_disk"],
)
def test_a_quick_look_at_the_figure_gives_its_value_and_its_target(name: str) -> None:
    figure = find_figures()[name].measure(quick=True)
    assert figure.name == name
    assert as_json(figure)["value"]
    assert figure.table


def test_a_quick_look_at_recall_asks_every_kind_of_query_of_both_kinds_of_data() -> None:
    found = as_json(find_figures()["recall"].measure(quick=True))
    asked = {(one["data"], one["queries"], one["search"]) for one in found["searches"]}
    assert len(asked) == 2 * 6 * 3
    assert found["value"]["recall"] == 1.0  # segments this small are scanned


def test_a_quick_look_at_segments_counts_what_ingestion_writes() -> None:
    found = as_json(find_figures()["segment_tax"].measure(quick=True))
    assert found["value"]["amplification"] > 1
    assert found["bytes_written"]["merged"] > 0


def test_a_quick_look_at_growth_compares_two_sizes_in_everything_that_an_index_does() -> None:
    found = as_json(find_figures()["growth"].measure(quick=True))
    assert found["rows"] == [2_000, 20_000]
    assert found["value"].keys() - {"rows"} == found["few"].keys() == found["many"].keys()
    assert not found["holds"], "so few rows prove nothing of ten million"
    assert min(found["value"].values()) > 0


def test_a_quick_look_at_serving_gives_the_cost_of_a_query_and_the_queries_a_second() -> None:
    found = as_json(find_figures()["served_cost"].measure(quick=True))
    assert min(found["value"].values()) > 0
    assert found["rate"]["recall"] > 0.95


@pytest.mark.parametrize(("size", "num_clients"), [(1, 16), (16, 4)])
def test_the_clients_ask_each_query_once(size: int, num_clients: int) -> None:
    queries = np.arange(48, dtype=np.float32)[:, None]
    clients = bodies_of_clients(queries, size)
    requests = [json.loads(body) for bodies in clients for body in bodies]
    asked = [query for request in requests for query in request.get("queries", [request])]
    assert len(clients) == num_clients
    assert sorted(query["vector"][0] for query in asked) == list(range(48))
