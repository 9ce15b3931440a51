"""What a search answers."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from pydantic import BaseModel

from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.search.request.models import BatchAnswer, SearchAnswer
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


async def search(client: Client, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/search", json=body)
    answer: dict[str, Any] = await response.json()
    assert response.status == 200, answer
    return answer


def ids(answer: dict[str, Any], modality: str) -> list[str]:
    return [hit["content_id"] for hit in answer["results"][modality]["hits"]]


async def test_a_text_finds_the_nearest_text_first(client: Client) -> None:
    answer = await search(client, text="red dress")
    assert ids(answer, "text")[0] == "t-red"


async def test_without_a_modality_each_is_answered_by_itself(client: Client) -> None:
    answer = await search(client, text="red dress")
    assert sorted(ids(answer, "text")) == ["t-blue", "t-red", "t-shoe"]
    assert sorted(ids(answer, "image")) == ["p-1", "p-2", "p-3"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search?k=3", {"text": "red"}),
        ("/v1/search/batch?timeout_ms=5", {"queries": [{"text": "red"}]}),
        ("/v1/search/batch?modality=text", {"queries": [{"text": "red"}]}),
        ("/v1/recommend?k=3", {"positive": [{"text": "red"}]}),
        ("/v1/browse?k=3", {}),
    ],
)
async def test_a_field_of_the_body_that_is_in_the_address_is_refused_and_not_passed_over(
    client: Client, path: str, body: dict[str, Any]
) -> None:
    response = await client.post(path, json=body)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (422, "unknown_field")
    assert "belongs into the JSON body" in error["message"]
    assert (await client.post(path.partition("?")[0] + "?trace=1", json=body)).status == 200


async def test_with_a_modality_it_alone_is_answered(client: Client) -> None:
    assert list((await search(client, text="red", modality="image"))["results"]) == ["image"]


async def test_an_image_in_base64_finds_itself(client: Client) -> None:
    answer = await search(client, image=base64.b64encode(draw_picture(2)).decode(), modality="image", k=1)
    [hit] = answer["results"]["image"]["hits"]
    assert hit["content_id"] == "p-2"
    assert hit["score"] == pytest.approx(1.0, abs=1e-3)


async def test_an_image_part_with_plain_fields_finds_itself(client: Client) -> None:
    form = FormData({"k": "1", "modality": "image", "include": "metadata,vector"})
    form.add_field("image", draw_picture(3), filename="p.png", content_type="image/png")
    response = await client.post("/v1/search", data=form)
    [hit] = (await response.json())["results"]["image"]["hits"]
    assert hit["content_id"] == "p-3"
    assert hit["metadata"] == {}
    assert len(hit["vector"]) == HashEncoder().dimension


async def test_an_image_part_with_a_json_query_part_finds_itself(client: Client) -> None:
    form = FormData()
    form.add_field("query", json.dumps({"k": 2, "modality": "image"}), content_type="application/json")
    form.add_field("image", draw_picture(1), filename="p.png")
    response = await client.post("/v1/search", data=form)
    assert ids(await response.json(), "image")[0] == "p-1"


async def test_a_search_by_content_id_leaves_that_content_out(client: Client) -> None:
    answer = await search(client, content_id="p-1", k=2)
    assert sorted(ids(answer, "image")) == ["p-2", "p-3"]


async def test_the_length_of_a_vector_does_not_matter(client: Client) -> None:
    vector = draw_vector()
    short, long = [
        (await search(client, vector=[x * scale for x in vector]))["results"] for scale in (1e-300, 1e300)
    ]
    assert short == long


async def test_included_fields_are_there_only_on_demand(client: Client) -> None:
    plain = (await search(client, text="red dress", k=1, modality="text"))["results"]["text"]["hits"][0]
    full = await search(
        client, text="red dress", k=1, modality="text", include=["text", "metadata", "vector"]
    )
    hit = full["results"]["text"]["hits"][0]
    assert plain == {key: hit[key] for key in plain}
    assert plain == {
        "content_id": "t-red",
        "score": plain["score"],
        "modality": "text",
        "source": "shop",
        "owner_id": "ann",
        "occurred_at": "2023-11-14T22:13:20Z",
        "link": None,
        "title": None,
        "version": None,
    }
    assert hit["text"] == "a red dress"
    assert hit["metadata"] == {"price": 12.5, "new": True}
    assert np.linalg.norm(hit["vector"]) == pytest.approx(1.0, abs=1e-3)


async def test_a_hits_vector_asks_for_what_its_content_id_asks_for(client: Client) -> None:
    hits = (await search(client, text="red", include=["vector"]))["results"]["text"]["hits"]
    by_id = ids(await search(client, content_id=hits[0]["content_id"]), "text")
    by_vector = ids(await search(client, vector=hits[0]["vector"]), "text")
    assert by_vector == [hits[0]["content_id"], *by_id]


async def test_min_score_leaves_out_what_scores_less(client: Client) -> None:
    answer = await search(client, text="a red dress", min_score=0.99)
    assert ids(answer, "text") == ["t-red"]
    assert ids(answer, "image") == []


async def test_a_search_from_the_query_string_equals_one_from_a_body(client: Client) -> None:
    response = await client.get(
        "/v1/search",
        params={
            "q": "red dress",
            "k": "2",
            "modality": "text",
            "include": "text,metadata",
            "min_score": "-1",
        },
    )
    body = await search(
        client, text="red dress", k=2, modality="text", include=["text", "metadata"], min_score=-1
    )
    assert (await response.json())["results"] == body["results"]


async def test_a_text_of_several_windows_finds_the_same_long_text(
    small_index: SmallIndex, start_service: StartService
) -> None:
    long_text = " ".join(f"word{number}" for number in range(200))
    small_index.commit(0, small_index.text("t-long", long_text))
    client = await start_service(small_index)
    assert ids(await search(client, text=long_text), "text")[0] == "t-long"


async def test_large_bodies_are_parsed_like_small_ones(client: Client) -> None:
    padded = json.dumps({"text": "red dress", "modality": "text"}) + " " * 100_000
    headers = {"Content-Type": "application/json"}
    response = await client.post("/v1/search", data=padded.encode(), headers=headers)
    assert ids(await response.json(), "text")[0] == "t-red"
    form = FormData()
    form.add_field("query", '{"k": 1, "modality": "image"}' + " " * 100_000)
    form.add_field("image", draw_picture(2), filename="p.png")
    response = await client.post("/v1/search", data=form)
    assert ids(await response.json(), "image") == ["p-2"]


async def test_concurrent_searches_are_answered_each_by_its_own_query(client: Client) -> None:
    wanted = {"red dress": "t-red", "blue coat": "t-blue", "white running shoes": "t-shoe"}
    texts = list(wanted) * 10
    answers = await asyncio.gather(*(search(client, text=text, modality="text", k=1) for text in texts))
    assert [ids(answer, "text") for answer in answers] == [[wanted[text]] for text in texts]


async def test_an_answer_says_what_it_covers_and_where_its_time_went(client: Client) -> None:
    response = await client.post("/v1/search", json={"text": "red"})
    answer = await response.json()
    first = answer["snapshot"]["content-uploads-0"]
    assert first["next_offset"] == 3
    assert first["generation"] >= 1
    assert first["watermark"] == "2023-11-14T22:13:20Z"
    assert answer["snapshot"]["content-uploads-1"]["watermark"] is None
    assert set(answer["timings"]) == {"read_ms", "wait_ms", "encode_ms", "search_ms", "columns_ms"}
    assert {stage.split(";")[0] for stage in response.headers["Server-Timing"].split(", ")} == {
        "read",
        "wait",
        "encode",
        "search",
        "columns",
    }


def draw_vector() -> list[float]:
    return [float(x) for x in np.random.default_rng(5).standard_normal(HashEncoder().dimension)]


ASKED: dict[str, tuple[dict[str, Any], type[BaseModel]]] = {
    "plain": ({"text": "red dress"}, SearchAnswer),
    "all that hits carry": (
        {"text": "red", "include": ["text", "metadata", "vector", "thumbnail", "thumbnail_url"]},
        SearchAnswer,
    ),
    "a page": ({"text": "red", "k": 1, "paged": True}, SearchAnswer),
    "the last page": ({"text": "red", "paged": True}, SearchAnswer),
    "a batch": ({"queries": [{"text": "red"}, {"text": "blue", "modality": "image"}]}, BatchAnswer),
}


@pytest.mark.parametrize(("asked", "model"), ASKED.values(), ids=ASKED)
async def test_answers_are_what_their_model_would_write(
    client: Client, asked: dict[str, Any], model: type[BaseModel]
) -> None:
    response = await client.post("/v1/search", json=asked)
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    body = await response.text()
    assert model.model_validate_json(body, strict=True).model_dump_json(exclude_unset=True) == body
