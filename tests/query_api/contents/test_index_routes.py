"""What `/v1/contents` and `/v1/index` tell."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiohttp.test_utils import TestClient
from yarl import URL

from fakes.hash_encoder import HashEncoder
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


async def test_a_content_is_told_whole(client: Client) -> None:
    answer = await (await client.get("/v1/contents/t-red")).json()
    assert answer["content"] == {
        "content_id": "t-red",
        "modality": "text",
        "source": "shop",
        "owner_id": "ann",
        "occurred_at": "2023-11-14T22:13:20Z",
        "link": None,
        "title": None,
        "version": None,
        "text": "a red dress",
        "metadata": {"price": 12.5, "new": True},
        "truncated": False,
        "sha256": None,
        "patched_at": None,
        "offset": 0,
    }
    assert answer["snapshot"]["content-uploads-0"]["next_offset"] == 3


async def test_a_contents_vector_is_there_on_demand(client: Client) -> None:
    answer = await (await client.get("/v1/contents/p-1", params={"include": "vector"})).json()
    assert len(answer["content"]["vector"]) == HashEncoder().dimension


async def test_a_content_id_may_hold_any_character(
    small_index: SmallIndex, start_service: StartService
) -> None:
    odd = "shop/ä b?c#d%2F"
    small_index.commit(0, small_index.text(odd, "odd"))
    client = await start_service(small_index)
    response = await client.get(URL(f"/v1/contents/{quote(odd, safe='')}", encoded=True))
    assert (await response.json())["content"]["content_id"] == odd


async def test_the_index_tells_its_shards_counts_and_encoder(client: Client) -> None:
    answer = await (await client.get("/v1/index")).json()
    fingerprint = HashEncoder().fingerprint
    assert answer["index_id"] == "main"
    assert answer["topic"] == "content-uploads"
    assert answer["num_partitions"] == 2
    assert len(answer["guarantees"]) == 7
    assert all(answer["guarantees"].values())
    assert answer["num_contents"] == {"text": 3, "image": 3}
    assert answer["encoder"]["fingerprint"] == fingerprint.short
    assert answer["encoder"]["dimension"] == fingerprint.dimension
    first = answer["shards"]["content-uploads-0"]
    assert (first["first_offset"], first["next_offset"]) == (0, 3)
    assert first["num_contents"] == {"text": 3, "image": 0}
    assert first["watermark"] == "2023-11-14T22:13:20Z"
    assert answer["snapshot"]["content-uploads-1"]["next_offset"] == 3
