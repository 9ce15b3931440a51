"""`/v1/embed`: what an index would hold of contents, without an index."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient

from fakes.hash_encoder import HashEncoder, draw_picture
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


def picture(seed: int) -> dict[str, str]:
    return {"image": base64.b64encode(draw_picture(seed)).decode()}


async def embed(client: Client, *contents: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    response = await client.post("/v1/embed", json={"contents": contents})
    return response.status, await response.json()


async def test_embeddings_are_those_of_the_index(client: Client) -> None:
    status, answer = await embed(client, {"text": "a red dress"}, picture(2))
    assert status == 200
    for content_id, [row] in zip(("t-red", "p-2"), answer["embeddings"], strict=True):
        body = {"vector": row, "k": 1, "modality": "text" if content_id == "t-red" else "image"}
        found = await (await client.post("/v1/search", json=body)).json()
        [hit] = found["results"][body["modality"]]["hits"]
        assert (hit["content_id"], hit["score"]) == (content_id, pytest.approx(1.0, abs=1e-3))
        assert np.array(row, np.float16).tolist() == row
    assert answer["encoder"]["dimension"] == len(answer["embeddings"][0][0]) == HashEncoder().dimension


async def test_a_long_text_has_an_embedding_for_each_window(client: Client) -> None:
    status, answer = await embed(client, {"text": "word " * 200}, {"text": "word"})
    assert status == 200
    assert [len(rows) for rows in answer["embeddings"]] == [4, 1]


async def test_it_needs_no_index(tmp_path: Path, start_service: StartService) -> None:
    client = await start_service(SmallIndex(tmp_path / "nowhere"))
    assert (await embed(client, {"text": "red"}))[0] == 200


@pytest.mark.parametrize(
    ("contents", "status", "code"),
    [
        ([], 422, "out_of_range"),
        ([{"text": "red"}] * 65, 422, "out_of_range"),
        ([{}], 422, "one_query_required"),
        ([{"text": "red", "image": "AAAA"}], 422, "one_query_required"),
        ([{"text": "  "}], 422, "empty_text"),
        ([{"text": "word " * 4000}], 422, "text_too_long"),
        ([{"image": "AAAA"}], 415, "not_an_image"),
        ([{"image": "no base64!"}], 422, "bad_base64"),
        ([{"vector": [1.0]}], 422, "unknown_field"),
    ],
    ids=str,
)
async def test_what_cannot_be_embedded_is_refused(
    client: Client, contents: list[dict[str, Any]], status: int, code: str
) -> None:
    found, answer = await embed(client, *contents)
    assert (found, answer["error"]["code"]) == (status, code)
