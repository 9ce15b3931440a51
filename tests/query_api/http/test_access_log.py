"""What the log holds of each request, and what it must never hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.query_api.conftest import SmallIndex, StartService


def _requests(logs: list[Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in logs if entry["event"] == "request"]


async def test_each_request_is_a_line_with_the_id_that_its_answer_carries(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, has_access_log=True)
    with capture_logs() as logs:
        answer = await client.get("/v1/search", params={"q": "a secret dress"})
        refused = await client.post("/v1/search", json={"nonsense": 1}, headers={"X-Request-Id": "mine-7"})
    found, failed = _requests(logs)
    assert found["request_id"] == answer.headers["X-Request-Id"]
    assert (found["method"], found["route"], found["status"]) == ("GET", "/v1/search", answer.status)
    assert 0 < found["seconds"] < 60
    assert (failed["request_id"], failed["status"]) == ("mine-7", refused.status)
    assert "secret" not in str(logs)


@pytest.mark.parametrize("path", ["/v1/contents/an-id-of-somebody", "/nowhere/an-id-of-somebody"])
async def test_a_line_names_the_pattern_of_the_route_and_not_the_path(
    path: str, small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, has_access_log=True)
    with capture_logs() as logs:
        await client.get(path)
    assert len(_requests(logs)) == 1
    assert "somebody" not in str(logs)


async def test_health_checks_that_succeed_are_written_for_debugging_only(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, has_access_log=True)
    with capture_logs() as logs:
        await client.get("/livez")
    assert [entry["log_level"] for entry in _requests(logs)] == ["debug"]


async def test_the_lines_can_be_turned_off(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(small_index, has_access_log=False)
    with capture_logs() as logs:
        await client.get("/v1/index")
    assert _requests(logs) == []
