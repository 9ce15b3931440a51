"""Facets: which values contents have, under a query and a filter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.content import EncodedContent, MetadataValue
from fakes.hash_encoder import draw_picture
from fakes.shards import with_facts
from query_api.contents import facet_routes
from tests.query_api.conftest import StartService
from tests.query_api.small_index import OCCURRED_AT_MS, SmallIndex

Client = TestClient[Any, Any]


def described(content: EncodedContent, metadata: Mapping[str, MetadataValue], seconds: int) -> EncodedContent:
    return with_facts(content, metadata=metadata, occurred_at_ms=OCCURRED_AT_MS + 1000 * seconds)


@pytest.fixture
def index(tmp_path: Path) -> SmallIndex:
    """Three texts and two pictures, one of them deleted."""
    index = SmallIndex(tmp_path / "index").create()
    index.commit(
        0,
        described(index.text("t-1", "a red hat", owner_id="ann"), {"colour": "red", "price": 5}, 1),
        described(index.text("t-2", "a red coat", owner_id="bob"), {"colour": "red", "new": True}, 2),
        described(index.text("t-3", "a blue sock"), {"colour": "blue", "new": "true"}, 3),
    )
    index.commit(
        1,
        described(index.image("p-1", draw_picture(1)), {"colour": "blue", "price": 9.5}, 4),
        described(index.image("p-2", draw_picture(2)), {"colour": "grey", "price": 99}, 5),
    )
    index.commit(1, index.removal("p-2"))
    return index


@pytest.fixture
async def client(index: SmallIndex, start_service: StartService) -> Client:
    return await start_service(index)


async def ask(client: Client, **body: Any) -> Any:
    response = await client.post("/v1/facets", json=body)
    assert response.status == 200, await response.text()
    return await response.json()


def values_of(facet: Any) -> list[tuple[Any, int]]:
    return [(one["value"], one["count"]) for one in facet["values"]]


async def test_without_a_query_all_live_contents_are_counted(client: Client) -> None:
    answer = await ask(client)
    fields = answer["fields"]
    assert (answer["num_counted"], answer["is_complete"]) == (4, True)
    assert values_of(fields["modality"]) == [("text", 3), ("image", 1)]
    assert values_of(fields["owner_id"]) == [("ann", 1), ("bob", 1)]
    assert values_of(fields["metadata.colour"]) == [("blue", 2), ("red", 2)]
    assert "content_id" not in fields


async def test_numbers_and_times_have_ranges(client: Client) -> None:
    fields = (await ask(client))["fields"]
    assert fields["metadata.price"] == {"range": {"min": 5.0, "max": 9.5}}
    assert fields["occurred_at"]["range"] == {
        "min": "2023-11-14T22:13:21Z",
        "max": "2023-11-14T22:13:24Z",
    }


async def test_a_text_that_says_true_is_not_the_truth_value(client: Client) -> None:
    new = (await ask(client, fields=["metadata.new"]))["fields"]["metadata.new"]
    assert sorted(values_of(new), key=str) == [("true", 1), (True, 1)]


async def test_counts_follow_the_filter_and_the_modality(client: Client) -> None:
    red = {"must": [{"field": "metadata.colour", "equals": "red"}]}
    assert values_of((await ask(client, filter=red))["fields"]["owner_id"]) == [("ann", 1), ("bob", 1)]
    pictures = await ask(client, modality="image")
    assert (pictures["num_counted"], values_of(pictures["fields"]["metadata.colour"])) == (1, [("blue", 1)])


async def test_counts_follow_the_query(client: Client) -> None:
    every = await ask(client, text="a red hat", modality="text")
    assert every["num_counted"] == 3
    like = await ask(client, content_id="t-1", modality="text", fields=["metadata.colour"])
    assert (like["num_counted"], list(like["fields"])) == (2, ["metadata.colour"])
    combined = await ask(client, terms=[{"text": "hat"}, {"content_id": "t-1", "weight": -0.5}])
    assert combined["num_counted"] == 3  # without t-1 itself


async def test_with_a_least_percentile_only_what_matches_well_is_counted(
    index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(index, has_percentiles=True)
    rated = {"text": "a red hat", "min_percentile": 0.9}
    while (await client.post("/v1/facets", json=rated)).status == 503:  # noqa: ASYNC110 (until scales are built)
        await asyncio.sleep(0.05)
    assert (await ask(client, **rated))["num_counted"] >= 1
    assert (await ask(client, text="zzz qqq", min_percentile=1))["num_counted"] == 0


async def test_the_most_frequent_values_are_answered(client: Client) -> None:
    colour = (await ask(client, max_values=1))["fields"]["metadata.colour"]
    assert (values_of(colour), colour["num_values"]) == ([("blue", 2)], 2)


@pytest.mark.parametrize(("most", "is_complete"), [(2, False), (3, True), (4, True)])
@pytest.mark.parametrize("query", [{}, {"text": "red"}], ids=["newest", "best"])
async def test_facets_are_complete_where_just_as_many_contents_match_as_are_read(
    small_index: SmallIndex,
    start_service: StartService,
    monkeypatch: pytest.MonkeyPatch,
    query: dict[str, Any],
    most: int,
    is_complete: bool,
) -> None:
    monkeypatch.setattr(facet_routes, "MAX_COUNTED", most)
    client = await start_service(small_index)
    response = await client.post("/v1/facets", json={**query, "modality": "text"})
    answer = await response.json()
    assert (answer["num_counted"], answer["is_complete"]) == (min(most, 3), is_complete)


async def test_beyond_the_contents_that_are_read_the_index_counts_what_it_keeps_counts_of(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facet_routes, "MAX_COUNTED", 1)
    answer = await ask(client)
    assert (answer["num_counted"], answer["is_complete"]) == (2, False)
    assert values_of(answer["fields"]["modality"]) == [("text", 3), ("image", 1)]
    assert values_of(answer["fields"]["metadata.colour"]) == [("blue", 2)]  # of the newest of each modality


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "a", "content_id": "t-1"}, "more than one query"),
        ({"min_percentile": 0.5}, "percentiles need"),
        ({"terms": [{"text": "a"}], "min_percentile": 0.5}, "percentiles need"),
        ({"fields": ["colour"]}, "must be one of"),
        ({"fields": []}, "needs 1 or more entries"),
        ({"max_values": 0}, "must be at least 1"),
    ],
)
async def test_what_cannot_be_counted_is_refused(client: Client, body: Any, message: str) -> None:
    response = await client.post("/v1/facets", json=body)
    assert response.status == 422
    assert message in await response.text()


async def test_facets_of_an_unknown_content_are_a_404(client: Client) -> None:
    response = await client.post("/v1/facets", json={"content_id": "nobody"})
    assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_content")


async def test_fields_that_no_live_content_has_are_named(index: SmallIndex, client: Client) -> None:
    answer = await ask(client, fields=["metadata.color", "metadata.colour", "owner_id"])
    assert answer["unknown_fields"] == ["metadata.color"]
    condition = {"field": "metadata.size", "equals": "L"}
    answer = await ask(client, filter={"must": [condition]})
    assert (answer["num_counted"], answer["unknown_fields"]) == (0, ["metadata.size"])
    assert "unknown_fields" not in await ask(client)


async def test_a_field_of_deleted_contents_alone_is_one_that_no_content_has(
    index: SmallIndex, start_service: StartService
) -> None:
    index.commit(0, described(index.text("t-9", "a tie"), {"pattern": "dots"}, 9))
    index.commit(0, index.removal("t-9"))
    client = await start_service(index)
    answer = await ask(client, fields=["metadata.pattern"])
    assert answer["unknown_fields"] == ["metadata.pattern"]
