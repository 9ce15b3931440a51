"""However a writer dies, the index equals the fold of its log, and no acknowledged commit is lost.

These are the campaigns of `make crash-long` with small numbers.
"""

from __future__ import annotations

import pytest

from crashes.campaign_process import finish_campaign, start_campaign


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(
            "step_kills", 193, id="killed at every call, of a new index, of an old one, in format 1"
        ),
        pytest.param("random_kills", 10, id="killed at random times while readers read"),
        pytest.param("quantised_kills", 6, id="killed at random times, with quantised lists"),
        pytest.param("power_cuts", 300, id="power cut"),
        pytest.param("damages", 60, id="a bit flipped or a file cut short"),
        pytest.param("store_damages", 60, id="an object or a copy of it damaged"),
        pytest.param("store_faults", 90, id="a store that fails at a request"),
    ],
)
def test_no_violation(name: str, number: int) -> None:
    result = finish_campaign(start_campaign(name, number=number))
    assert result["violations"] == []
    assert result["tried"] == number
