"""Many contents at once: each upload has its own outcome, and a filter deletes what passes it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from event_log.errors import TransientLogError
from event_log.memory.clients import MemoryLog, MemoryPublisher
from fakes.hash_encoder import draw_picture
from schemas.codec import EventDecoder
from tests.consumer.running import World, upload
from tests.integration.pipeline import running_pipeline
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
WAIT = {"wait": "searchable", "timeout_ms": "60000"}
SHOP = {"must": [{"field": "source", "equals": "shop"}]}


@pytest.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[tuple[World, Client]]:
    async with running_pipeline(tmp_path / "index") as running:
        yield running


def text(content_id: str, words: str = "a red hat", **fields: Any) -> dict[str, Any]:
    return {"content_id": content_id, "content": {"text": words}, "source": "shop", **fields}


async def post(client: Client, path: str, body: Any, **params: str) -> tuple[int, Any]:
    response = await client.post(path, json=body, params=params)
    return response.status, await response.json()


async def ids_of(client: Client) -> set[str]:
    status, answer = await post(client, "/v1/browse", {"k": 1000, "filter": SHOP})
    assert status == 200
    return {hit["content_id"] for found in answer["results"].values() for hit in found["hits"]}


async def test_a_batch_is_searchable_when_it_was_waited_for(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    uploads = [text(f"b-{number}", f"a hat {number}") for number in range(64)]
    status, answer = await post(client, "/v1/contents/batch", {"contents": uploads}, **WAIT)
    assert (status, answer["num_failed"]) == (200, 0)
    assert [outcome["content_id"] for outcome in answer["outcomes"]] == [one["content_id"] for one in uploads]
    assert {outcome["status"] for outcome in answer["outcomes"]} == {200}
    assert len(await ids_of(client)) == 64


async def test_a_wrong_upload_does_not_refuse_the_others(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    uploads = [
        text("good"),
        {"content_id": "no-content"},
        text("bad-picture") | {"content": {"image": "YWJj"}},
        {"content": {"text": "no id"}},
        5,
        text("unknown-field", limit=3),
        text(".", "an id that no address can hold"),
    ]
    status, answer = await post(client, "/v1/contents/batch", {"contents": uploads}, **WAIT)
    assert status == 200
    outcomes = [(one["status"], one.get("error", {}).get("code")) for one in answer["outcomes"]]
    assert outcomes == [
        (200, None),
        (422, "empty_content"),
        (415, "not_an_image"),
        (422, "missing_field"),
        (422, "invalid_value"),
        (422, "unknown_field"),
        (422, "invalid_field"),
    ]
    assert answer["num_failed"] == 6
    assert answer["outcomes"][1]["content_id"] == "no-content"
    assert "content_id" not in answer["outcomes"][3]
    assert await ids_of(client) == {"good"}


async def test_events_of_one_content_keep_their_order(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    uploads = [text("x", "first"), text("y"), text("x", "second"), {"content_id": "y", "operation": "delete"}]
    _, answer = await post(client, "/v1/contents/batch", {"contents": uploads}, **WAIT)
    assert [one["status"] for one in answer["outcomes"]] == [409, 409, 200, 200]
    assert await ids_of(client) == {"x"}
    response = await client.get("/v1/contents/x")
    assert (await response.json())["content"]["text"] == "second"


async def test_without_waiting_the_answer_says_what_makes_a_search_see_all(
    pipeline: tuple[World, Client],
) -> None:
    _, client = pipeline
    status, answer = await post(client, "/v1/contents/batch", {"contents": [text("a"), text("b")]})
    assert {one["status"] for one in answer["outcomes"]} == {202}
    asked = {"text": "a red hat", "min_offsets": answer["min_offsets"], "timeout_ms": 60_000}
    status, found = await post(client, "/v1/search", asked)
    assert status == 200
    assert {hit["content_id"] for hit in found["results"]["text"]["hits"]} == {"a", "b"}


async def test_an_upload_that_is_not_searchable_in_time_is_told_so_by_itself(
    small_index: SmallIndex, start_service: StartService
) -> None:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    client = await start_service(small_index, publisher=MemoryPublisher(log), max_wait_seconds=0.01)
    uploads = [text(f"late-{number}") for number in range(5)]
    status, answer = await post(client, "/v1/contents/batch", {"contents": uploads}, wait="searchable")
    assert status == 200
    assert {one["error"]["code"] for one in answer["outcomes"]} == {"not_searchable_in_time"}
    assert [one["offset"] for one in answer["outcomes"]] == [0, 1, 2, 3, 4]


class FailingPublisher(MemoryPublisher):
    """Takes the first records and no more."""

    def __init__(self, log: MemoryLog, num_taken: int) -> None:
        super().__init__(log)
        self.num_left = num_taken

    def publish(self, topic: str, **record: Any) -> Any:
        self.num_left -= 1
        if self.num_left < 0:
            raise TransientLogError("the broker is away")
        return super().publish(topic, **record)


async def test_a_log_that_fails_midway_is_told_of_each_upload(
    small_index: SmallIndex, start_service: StartService
) -> None:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    client = await start_service(small_index, publisher=FailingPublisher(log, 1))
    _, answer = await post(client, "/v1/contents/batch", {"contents": [text("a"), text("b")]})
    assert [one["status"] for one in answer["outcomes"]] == [202, 503]
    assert answer["outcomes"][1]["error"]["code"] == "log_unavailable"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param({}, "missing_field", id="nothing"),
        pytest.param({"contents": []}, "out_of_range", id="none"),
        pytest.param({"contents": [{}] * 65}, "out_of_range", id="too many"),
        pytest.param({"contents": {}}, "invalid_value", id="no list"),
        pytest.param({"uploads": []}, "unknown_field", id="another name"),
    ],
)
async def test_a_batch_that_is_none_is_refused(
    small_index: SmallIndex, start_service: StartService, body: Any, code: str
) -> None:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    client = await start_service(small_index, publisher=MemoryPublisher(log))
    status, answer = await post(client, "/v1/contents/batch", body)
    assert status == 422
    assert code in [detail["code"] for detail in answer["error"]["details"]]


@pytest.mark.parametrize("path", ["/v1/contents/batch", "/v1/contents/delete"])
async def test_a_service_without_uploads_takes_no_bulk_calls(client: Client, path: str) -> None:
    status, answer = await post(client, path, {"contents": [text("a")]})
    assert (status, answer["error"]["code"]) == (403, "publishing_off")


async def test_contents_named_like_the_bulk_routes_can_be_read(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    await post(client, "/v1/contents/batch", {"contents": [text("batch"), text("delete")]}, **WAIT)
    for name in ("batch", "delete"):
        assert (await client.get(f"/v1/contents/{name}")).status == 200
        assert (await client.delete(f"/v1/contents/{name}", params=WAIT)).status == 200
    assert await ids_of(client) == set()


async def fill(client: Client) -> None:
    uploads = [
        *(text(f"cheap-{number}", metadata={"price": 5}) for number in range(3)),
        *(text(f"dear-{number}", metadata={"price": 50}) for number in range(2)),
    ]
    _, answer = await post(client, "/v1/contents/batch", {"contents": uploads}, **WAIT)
    assert answer["num_failed"] == 0


CHEAP = {"must": [*SHOP["must"], {"field": "metadata.price", "lt": 20}]}


async def test_a_delete_by_filter_is_a_dry_run_unless_it_says_otherwise(
    pipeline: tuple[World, Client],
) -> None:
    _, client = pipeline
    await fill(client)
    status, answer = await post(client, "/v1/contents/delete", {"filter": CHEAP}, **WAIT)
    assert (status, answer["dry_run"], answer["num_found"], answer["num_deleted"]) == (200, True, 3, 0)
    assert set(answer["content_ids"]) == {"cheap-0", "cheap-1", "cheap-2"}
    assert len(await ids_of(client)) == 5


async def test_a_delete_by_filter_deletes_what_passes_and_nothing_else(
    pipeline: tuple[World, Client],
) -> None:
    world, client = pipeline
    world.wait_committed(world.publish(upload("picture")))
    await fill(client)
    body = {"filter": CHEAP, "dry_run": False}
    status, answer = await post(client, "/v1/contents/delete", body, **WAIT)
    assert (status, answer["num_found"], answer["num_deleted"]) == (200, 3, 3)
    assert await ids_of(client) == {"dear-0", "dear-1"}
    assert (await client.get("/v1/contents/picture")).status == 200
    status, again = await post(client, "/v1/contents/delete", body, **WAIT)
    assert (again["num_found"], again["num_deleted"], again["min_offsets"]) == (0, 0, {})


async def test_more_than_expected_is_not_deleted(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    await fill(client)
    body = {"filter": SHOP, "dry_run": False, "max_contents": 4}
    status, answer = await post(client, "/v1/contents/delete", body)
    assert (status, answer["error"]["code"]) == (422, "too_many_contents")
    assert answer["error"]["message"].startswith("5 contents pass the filter")
    status, answer = await post(client, "/v1/contents/delete", {"filter": SHOP, "max_contents": 4})
    assert (status, answer["num_found"], answer["content_ids"]) == (200, 5, [])
    assert len(await ids_of(client)) == 5


@pytest.mark.parametrize("wanted", [{}, {"must": []}, {"should": [], "must_not": []}])
async def test_a_delete_of_everything_is_refused(pipeline: tuple[World, Client], wanted: Any) -> None:
    _, client = pipeline
    status, answer = await post(client, "/v1/contents/delete", {"filter": wanted, "dry_run": False})
    assert (status, answer["error"]["code"]) == (422, "invalid_value")
    assert answer["error"]["message"] == "the filter needs at least one condition"


async def test_a_newer_version_that_is_uploaded_meanwhile_stays(
    small_index: SmallIndex, start_service: StartService
) -> None:
    """The delete carries the version that was found, so it does not apply to a later one."""
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    client = await start_service(small_index, publisher=MemoryPublisher(log))
    wanted = {"must": [{"field": "content_id", "any_of": ["t-red", "t-blue"]}]}
    status, answer = await post(client, "/v1/contents/delete", {"filter": wanted, "dry_run": False})
    assert (status, answer["num_deleted"]) == (200, 2)
    decode = EventDecoder().decode
    records = log.partition(TOPIC, 0).records
    events = [decode(key=r.key, value=r.value, headers=r.headers, timestamp_ms=0) for r in records]
    assert {event.content_id: event.version for event in events} == {"t-red": None, "t-blue": 7}


async def test_pictures_are_found_and_deleted_too(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    picture = text("p") | {"content": {"image": base64.b64encode(draw_picture(3)).decode()}}
    await post(client, "/v1/contents/batch", {"contents": [picture, text("t")]}, **WAIT)
    _, answer = await post(client, "/v1/contents/delete", {"filter": SHOP, "dry_run": False}, **WAIT)
    assert answer["num_deleted"] == 2
    assert await ids_of(client) == set()
