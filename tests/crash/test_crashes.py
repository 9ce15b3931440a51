"""Whatever kills a writer, the index is the fold of what it covers, and nothing acknowledged is lost.

Small numbers of what `make crash-long` does at length.
"""

from __future__ import annotations

import pytest

from tools.crash.campaign_process import finish_campaign, start_campaign


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param("step_kills", 180, id="killed at every call of a new index and of one with a past"),
        pytest.param("random_kills", 10, id="killed at random times while readers look on"),
        pytest.param("power_cuts", 300, id="power cut"),
        pytest.param("damages", 60, id="a bit flipped or a file cut short"),
    ],
)
def test_no_violation(name: str, number: int) -> None:
    result = finish_campaign(start_campaign(name, number=number))
    assert result["violations"] == []
    assert result["tried"] == number
