"""Every figure of the whole way runs: a quick look, in which no number is judged."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import as_json, find_figures


@pytest.mark.usefixtures("embedded_broker")
@pytest.mark.broker
@pytest.mark.encoder
@pytest.mark.parametrize("name", ["freshness", "hostile", "intake", "kept_under_ingest", "pipeline"])
def test_a_quick_look_at_the_figure_gives_its_value_and_its_target(name: str) -> None:
    figure = find_figures()[name].measure(quick=True)
    assert figure.name == name
    assert as_json(figure)["value"]
    assert figure.table


def test_a_quick_look_at_segments_counts_what_ingestion_writes() -> None:
    found = as_json(find_figures()["segment_tax"].measure(quick=True))
    assert found["value"]["amplification"] > 1
    assert found["bytes_written"]["merged"] > 0
