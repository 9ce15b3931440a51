"""However a writer of an index in a bucket is killed, the index equals the fold of its log."""

from __future__ import annotations

import os

import pytest

from crashes.campaign_process import finish_campaign, start_campaign
from crashes.store_kills import BUCKET_VARIABLE
from tests.object_stores.servers import ObjectServer

NUM_KILLS = int(os.environ.get("CLIPTIDE_TEST_STORE_KILLS", "8"))


@pytest.mark.parametrize(
    ("campaign", "server"),
    [("store_kills", "s3_gateway"), ("store_kills", "moto_server"), ("quantised_store_kills", "s3_gateway")],
)
def test_no_violation(request: pytest.FixtureRequest, campaign: str, server: str) -> None:
    found: ObjectServer = request.getfixturevalue(server)
    environment = {**found.environment, BUCKET_VARIABLE: found.new_bucket()}
    result = finish_campaign(start_campaign(campaign, number=NUM_KILLS, environment=environment))
    assert result["violations"] == []
    assert result["tried"] == NUM_KILLS
