"""A wide picture is found by what stands at its end, and finds by it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes.hash_encoder import HashEncoder
from query_api.search.paging.cursors import read_cursor, write_cursor
from query_api.search.paging.pages import Page
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.request.options import RatedOptions
from query_api.serving.best_of_crops import best_of_crops
from query_api.serving.engine import Hit, Location
from tests.clip_index.encoder.pictures import encoded, plain_photograph
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

ENCODER = HashEncoder(max_crops=3)
WHOLE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 24, 3), dtype=np.uint8))
"""Three of the encoder's inputs side by side, so that nothing is resized and crops are equal to the bit."""


def png(image: Image.Image) -> bytes:
    return encoded(image, "PNG")


END, MIDDLE = png(WHOLE.crop((16, 0, 24, 8))), png(WHOLE.crop((8, 0, 16, 8)))


@pytest.fixture
def wide_index(tmp_path: Any) -> SmallIndex:
    index = SmallIndex(tmp_path / "index", encoder=ENCODER).create()
    others = [index.image(f"other-{n}", png(plain_photograph(40 + n, 40))) for n in range(3)]
    index.commit(0, index.image("wide", png(WHOLE)), *others)
    index.commit(1, index.image("end", END), index.image("middle", MIDDLE))
    return index


async def search(client: Any, image: bytes, **fields: str) -> dict[str, Any]:
    response = await client.post("/v1/search", data={"image": io.BytesIO(image), **fields})
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def test_the_end_of_a_wide_picture_finds_it(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(wide_index, encoder=ENCODER)
    hits = (await search(client, END, k="10", modality="image"))["results"]["image"]["hits"]
    ids = [hit["content_id"] for hit in hits]
    assert set(ids[:2]) == {"wide", "end"}
    assert [hit["score"] for hit in hits[:2]] == pytest.approx([1, 1], abs=1e-3)
    assert ids.count("wide") == 1


async def test_a_wide_picture_finds_what_any_of_its_crops_is_like(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(wide_index, encoder=ENCODER)
    hits = (await search(client, png(WHOLE), k="10", modality="image"))["results"]["image"]["hits"]
    assert {hit["content_id"] for hit in hits[:3]} == {"wide", "end", "middle"}
    assert [hit["score"] for hit in hits[:3]] == pytest.approx([1] * 3, abs=1e-3)
    assert len({hit["content_id"] for hit in hits}) == len(hits) == 6


async def test_pages_of_a_wide_picture_hold_each_content_once(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(wide_index, encoder=ENCODER)
    asked = {"image": base64.b64encode(png(WHOLE)).decode(), "k": 2, "modality": "image", "paged": True}
    answer = await (await client.post("/v1/search", json=asked)).json()
    ids = [hit["content_id"] for hit in answer["results"]["image"]["hits"]]
    while (cursor := answer.get("next_cursor")) is not None:
        answer = await (await client.post("/v1/search", json={"cursor": cursor})).json()
        ids += [hit["content_id"] for hit in answer["results"]["image"]["hits"]]
    assert len(ids) == len(set(ids)) == 6


async def test_a_wide_content_finds_what_any_of_its_crops_is_like(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(wide_index, encoder=ENCODER)
    response = await client.post("/v1/search", json={"content_id": "wide", "k": 2, "modality": "image"})
    hits = (await response.json())["results"]["image"]["hits"]
    assert {hit["content_id"] for hit in hits} == {"end", "middle"}


async def test_a_deleted_wide_picture_is_found_by_none_of_its_crops(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    wide_index.commit(0, wide_index.removal("wide"))
    client = await start_service(wide_index, encoder=ENCODER)
    hits = (await search(client, png(WHOLE), k="10", modality="image"))["results"]["image"]["hits"]
    assert "wide" not in {hit["content_id"] for hit in hits}
    assert len(hits) == 5


async def test_the_calls_of_earlier_services_search_by_every_crop(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    wide_index.commit(1, wide_index.image("linked", END, link="https://x.test/end"))
    client = await start_service(wide_index, encoder=ENCODER)
    links = await client.post("/image_url", data={"image_file": io.BytesIO(png(WHOLE))})
    assert await links.json() == ["https://x.test/end"]
    url = "/mv_retrieval/v0.1/retrieve_contents?k=4&type=image"
    retrieved = await (await client.post(url, data=png(WHOLE))).json()
    assert retrieved["image"]["scores"][:3] == pytest.approx([1] * 3, abs=1e-3)


async def test_the_embeddings_of_a_wide_picture_are_those_of_its_crops(
    wide_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(wide_index, encoder=ENCODER)
    contents = [{"image": base64.b64encode(data).decode()} for data in (png(WHOLE), END)]
    answer = await (await client.post("/v1/embed", json={"contents": contents})).json()
    assert [len(rows) for rows in answer["embeddings"]] == [3, 1]
    assert answer["embeddings"][1][0] in answer["embeddings"][0]


def test_a_cursor_keeps_the_embeddings_of_all_crops() -> None:
    [crops] = ENCODER.encode([ENCODER.prepare_image(png(WHOLE))])
    page = Page(QueryEmbedding.of_picture(crops), RatedOptions(k=2), {}, {"image": None})
    query = read_cursor(write_cursor(page, b"key"), b"key", ENCODER.dimension).query
    assert (query.searched == crops).all()
    assert query.modality == "image"


def test_a_smaller_answer_begins_a_greater_one_even_where_rankings_do_not_fall() -> None:
    def hit(content_id: str, score: float) -> Hit:
        return Hit(content_id, score, "image", Location("shard", None, 0))  # type: ignore[arg-type]

    one = [hit("a", 0.9), hit("b", 0.5), hit("c", 0.8)]  # far down, what follows may score higher
    other = [hit("b", 0.7), hit("d", 0.6), hit("a", 0.1)]
    ids = [[found.content_id for found in best_of_crops([one[:k], other[:k]], k)] for k in (1, 2, 3)]
    assert ids == [["a"], ["a", "b"], ["a", "b", "d"]]
