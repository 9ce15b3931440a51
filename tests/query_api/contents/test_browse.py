"""Looking at an index without a query: newest contents, counts, thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from PIL import Image

from clip_index.content import EncodedContent
from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import make_thumbnail
from fakes.hash_encoder import draw_picture
from fakes.shards import with_facts
from query_api.serving.served_index import ServedIndex
from query_api.swap.index_swap import INDEX_SWAP
from tests.query_api.conftest import StartService
from tests.query_api.small_index import OCCURRED_AT_MS, SmallIndex

Client = TestClient[Any, Any]
THUMBNAIL = make_thumbnail(draw_picture(9), 16, ImageLimits())


def later(content: EncodedContent, seconds: int, source: str = "shop") -> EncodedContent:
    return with_facts(content, occurred_at_ms=OCCURRED_AT_MS + 1000 * seconds, source=source)


@pytest.fixture
def index(tmp_path: Path) -> SmallIndex:
    """Two shards, three segments; `t-gone` is deleted, `p-1` was uploaded twice."""
    index = SmallIndex(tmp_path / "index").create()
    index.commit(
        0,
        later(index.text("t-1", "a hat", owner_id="ann"), 1),
        later(index.text("t-gone", "a coat", owner_id="ann"), 9),
        later(index.text("t-3", "a shoe", owner_id="bob"), 3, source="forum"),
    )
    index.commit(0, index.removal("t-gone"), later(index.text("t-4", "a sock"), 4, source="forum"))
    index.commit(
        1,
        later(index.image("p-1", draw_picture(1)), 1),
        later(index.image("p-1", draw_picture(2), thumbnail=THUMBNAIL), 5),
        later(index.image("p/2 ?", draw_picture(3), link="https://x.test/2", thumbnail=THUMBNAIL), 2),
    )
    return index


@pytest.fixture
async def client(index: SmallIndex, start_service: StartService) -> Client:
    return await start_service(index)


def served_index_of(client: Client) -> ServedIndex:
    assert client.app is not None
    return client.app[INDEX_SWAP].pair.index


async def browse(client: Client, **body: Any) -> dict[str, list[str]]:
    response = await client.post("/v1/browse", json=body)
    assert response.status == 200, await response.text()
    results = (await response.json())["results"]
    return {modality: [hit["content_id"] for hit in found["hits"]] for modality, found in results.items()}


async def test_the_newest_contents_come_first_and_deleted_ones_never(client: Client) -> None:
    assert await browse(client) == {"text": ["t-4", "t-3", "t-1"], "image": ["p-1", "p/2 ?"]}


async def test_browsing_takes_k_a_modality_and_a_filter(client: Client) -> None:
    forum = {"must": [{"field": "source", "equals": "forum"}]}
    assert await browse(client, k=1) == {"text": ["t-4"], "image": ["p-1"]}
    assert await browse(client, modality="text", k=2) == {"text": ["t-4", "t-3"]}
    assert await browse(client, filter=forum) == {"text": ["t-4", "t-3"], "image": []}


async def pages(client: Client, **body: Any) -> AsyncIterator[dict[str, list[str]]]:
    """Ask page after page until there is no more."""
    cursor = None
    while True:
        response = await client.post("/v1/browse", json={**body, **({"cursor": cursor} if cursor else {})})
        assert response.status == 200, await response.text()
        answer = await response.json()
        yield {m: [hit["content_id"] for hit in found["hits"]] for m, found in answer["results"].items()}
        if (cursor := answer["next_cursor"]) is None:
            return


@pytest.mark.parametrize("k", [1, 2, 3])
async def test_pages_show_everything_once_in_the_order_of_one_large_answer(client: Client, k: int) -> None:
    whole = await browse(client)
    shown: dict[str, list[str]] = {"text": [], "image": []}
    async for page in pages(client, k=k):
        for modality, ids in page.items():
            assert len(ids) <= k
            shown[modality] += ids
    assert shown == whole


async def test_contents_of_one_time_are_paged_through_whole(
    tmp_path: Path, start_service: StartService
) -> None:
    index = SmallIndex(tmp_path / "same" / "index").create()
    for shard in (0, 1):
        for number in range(3):
            index.commit(shard, *(index.text(f"t-{shard}{number}{one}", f"hat {one}") for one in range(5)))
    client = await start_service(index)
    shown = [i async for page in pages(client, k=4, modality="text") for i in page["text"]]
    assert len(shown) == len(set(shown)) == 30
    assert shown == (await browse(client, k=100))["text"]


async def test_uploads_between_pages_neither_repeat_nor_skip(index: SmallIndex, client: Client) -> None:
    asked = pages(client, k=1, modality="text")
    shown = [await asked.__anext__()]
    index.commit(0, later(index.text("t-new", "a glove"), 20), later(index.text("t-3", "a shoe"), 21))
    served = served_index_of(client)
    await served.reload()
    shown += [page async for page in asked]
    assert [i for page in shown for i in page["text"]] == ["t-4", "t-1"]  # t-3 is now the newest of all


@pytest.mark.parametrize(
    "cursor",
    ["x", "äöü", "e30=", base64.b64encode(b'{"text": {"occurred_at_ms": 1e99}}').decode(), "W10="],
    ids=["no base64", "not ASCII", "empty", "a place that is none", "a list"],
)
async def test_a_cursor_of_nobody_is_refused(client: Client, cursor: str) -> None:
    response = await client.post("/v1/browse", json={"cursor": cursor})
    assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_cursor")


async def test_browsed_contents_carry_what_is_asked_for_and_no_score(client: Client) -> None:
    body = {"k": 1, "include": ["text", "metadata", "thumbnail", "thumbnail_url"]}
    results = (await (await client.post("/v1/browse", json=body)).json())["results"]
    [text], [picture] = results["text"]["hits"], results["image"]["hits"]
    assert (text["text"], text["thumbnail"], text["thumbnail_url"]) == ("a sock", None, None)
    assert base64.b64decode(picture["thumbnail"]) == THUMBNAIL
    assert "score" not in picture


async def test_a_filter_on_metadata_that_no_content_has_is_named_where_nothing_is_found(
    client: Client,
) -> None:
    for condition, named in (
        ({"field": "metadata.colr", "equals": "red"}, ["metadata.colr"]),
        ({"field": "owner_id", "equals": "nobody"}, None),
    ):
        response = await client.post("/v1/browse", json={"filter": {"must": [condition]}})
        assert (await response.json()).get("unknown_fields") == named


async def test_hits_of_a_search_name_their_thumbnails(client: Client) -> None:
    body = {"content_id": "p-1", "modality": "image", "include": ["thumbnail_url"]}
    [hit] = (await (await client.post("/v1/search", json=body)).json())["results"]["image"]["hits"]
    assert hit["thumbnail_url"] == "/v1/contents/p%2F2%20%3F/thumbnail?offset=2"
    assert "thumbnail" not in hit
    response = await client.get(hit["thumbnail_url"])
    assert await response.read() == THUMBNAIL


async def test_a_thumbnail_comes_in_two_sizes_and_a_small_one_as_it_is(
    index: SmallIndex, client: Client
) -> None:
    large = make_thumbnail(draw_picture(7, size=(400, 300)), 400, ImageLimits())
    index.commit(1, later(index.image("p-large", draw_picture(7), thumbnail=large), 6))
    await served_index_of(client).reload()
    sizes = {}
    for size in ("small", "kept"):
        for content_id in ("p-large", "p-1"):
            response = await client.get(f"/v1/contents/{content_id}/thumbnail?size={size}")
            sizes[content_id, size] = max(Image.open(io.BytesIO(await response.read())).size)
    own = max(Image.open(io.BytesIO(THUMBNAIL)).size)
    assert sizes == {
        ("p-large", "small"): 256,
        ("p-large", "kept"): 400,
        ("p-1", "small"): own,
        ("p-1", "kept"): own,
    }
    response = await client.get("/v1/contents/p-large/thumbnail?size=huge")
    assert response.status == 422


async def test_a_thumbnail_of_this_very_upload_is_kept_by_browsers_for_an_hour(client: Client) -> None:
    current, other = [await client.get(f"/v1/contents/p-1/thumbnail?offset={n}") for n in (1, 0)]
    assert current.headers["Content-Type"] == "image/webp"
    assert current.headers["Cache-Control"] == "private, max-age=3600"
    assert other.headers["Cache-Control"] == "no-cache"
    assert await other.read() == THUMBNAIL


@pytest.mark.parametrize("query", ["", "?size=small", "?offset=0"])
async def test_a_thumbnail_that_the_browser_has_is_not_sent_again(client: Client, query: str) -> None:
    path = f"/v1/contents/p-1/thumbnail{query}"
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
    assert (again.status, await again.read()) == (304, b"")
    other = await client.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status, await other.read()) == (200, await first.read())


@pytest.mark.parametrize(
    ("content_id", "code"),
    [("t-1", "no_thumbnail"), ("t-gone", "unknown_content")],
    ids=["a text", "a deleted content"],
)
async def test_without_a_thumbnail_there_is_a_404(client: Client, content_id: str, code: str) -> None:
    response = await client.get(f"/v1/contents/{content_id}/thumbnail")
    assert (response.status, (await response.json())["error"]["code"]) == (404, code)


async def counts(client: Client, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/counts", json=body)
    assert response.status == 200, await response.text()
    fields = (await response.json())["fields"]
    return {name: [(v["value"], v["count"]) for v in field["values"]] for name, field in fields.items()}


async def test_values_are_counted_among_live_contents_the_most_frequent_first(client: Client) -> None:
    assert await counts(client) == {
        "modality": [("text", 3), ("image", 2)],
        "source": [("shop", 3), ("forum", 2)],
        "owner_id": [("ann", 1), ("bob", 1)],
    }


async def test_counting_takes_fields_a_filter_and_a_bound(client: Client) -> None:
    forum = {"must": [{"field": "source", "equals": "forum"}]}
    assert await counts(client, fields=["owner_id"], filter=forum) == {"owner_id": [("bob", 1)]}
    response = await client.post("/v1/counts", json={"fields": ["source"], "max_values": 1})
    source = (await response.json())["fields"]["source"]
    assert source == {"values": [{"value": "shop", "count": 3}], "num_values": 2}


async def test_counts_follow_deletes_and_updates_of_a_segment_that_stays(
    index: SmallIndex, client: Client
) -> None:
    forum = {"must": [{"field": "source", "equals": "forum"}]}
    assert await counts(client, fields=["source"]) == {"source": [("shop", 3), ("forum", 2)]}
    index.commit(0, index.removal("t-3"), later(index.text("t-1", "a hat", owner_id="cem"), 30))
    await served_index_of(client).reload()
    assert await counts(client, fields=["source", "owner_id"]) == {
        "source": [("shop", 3), ("forum", 1)],
        "owner_id": [("cem", 1)],
    }
    assert await counts(client, fields=["source"], filter=forum) == {"source": [("forum", 1)]}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/browse", {"k": 0}, "out_of_range"),
        ("/v1/browse", {"text": "a"}, "unknown_field"),
        ("/v1/counts", {"fields": ["content_id"]}, "invalid_value"),
        ("/v1/counts", {"fields": []}, "out_of_range"),
    ],
    ids=["no contents", "a query", "a field that is not counted", "no field"],
)
async def test_a_bad_request_is_refused(client: Client, path: str, body: Any, code: str) -> None:
    response = await client.post(path, json=body)
    assert (response.status, (await response.json())["error"]["code"]) == (422, code)
