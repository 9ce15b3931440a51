"""Vectors as bytes ask for the same as the list of their numbers, and have the same faults."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient

from fakes.hash_encoder import HashEncoder

Client = TestClient[Any, Any]
DIMENSION = HashEncoder().fingerprint.dimension
VECTORS = np.random.default_rng(3).standard_normal((3, DIMENSION)).astype("<f4")
OCTETS = {"Content-Type": "application/octet-stream"}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def answer_to(client: Client, body: dict[str, Any], path: str = "/v1/search") -> bytes:
    response = await client.post(path, json=body)
    assert response.status == 200, await response.text()
    return (await response.read()).partition(b',"timings":')[0]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
async def test_base64_asks_for_the_same_as_the_list(client: Client, encode: Any) -> None:
    vector = VECTORS[0]
    text = encode(vector.tobytes()).decode()
    for further in ({}, {"modality": "image", "k": 2}, {"min_score": 0.1}):
        expected = await answer_to(client, {"vector": vector.tolist(), **further})
        assert await answer_to(client, {"vector": text, **further}) == expected
    unpadded = await answer_to(client, {"vector": text.rstrip().rstrip("=")})
    assert unpadded == await answer_to(client, {"vector": vector.tolist()})


async def test_base64_stands_wherever_a_vector_does(client: Client) -> None:
    number, text = VECTORS[0].tolist(), in_base64(VECTORS[0].tobytes())
    for wrap in (
        lambda vector: ("/v1/search", {"terms": [{"vector": vector, "weight": 2.0}]}),
        lambda vector: ("/v1/search/batch", {"queries": [{"vector": vector, "k": 1}]}),
        lambda vector: ("/v1/recommend", {"positive": [{"vector": vector}]}),
    ):
        (path, listed), (_, encoded) = wrap(number), wrap(text)
        assert await answer_to(client, encoded, path) == await answer_to(client, listed, path)


FAULTS = {
    "not base64": ("no vector!", "bad_base64"),
    "empty": ("", "out_of_range"),
    "half a number": (in_base64(VECTORS[0].tobytes()[:-2]), "wrong_dimension"),
    "a number too few": (in_base64(VECTORS[0].tobytes()[:-4]), "wrong_dimension"),
    "a number too many": (in_base64(VECTORS[0].tobytes() + b"\0\0\0\0"), "wrong_dimension"),
    "float64": (in_base64(VECTORS[0].astype("<f8").tobytes()), "wrong_dimension"),
    "NaN": (in_base64(np.full(DIMENSION, np.nan, "<f4").tobytes()), "not_finite"),
    "infinity": (in_base64(np.full(DIMENSION, np.inf, "<f4").tobytes()), "not_finite"),
    "zeros": (in_base64(bytes(4 * DIMENSION)), "zero_vector"),
    "very long": ("A" * 100_000, "out_of_range"),
    "a number": (7, "invalid_value"),
    "an object": ({}, "invalid_value"),
    "a list of texts": (["1"], "invalid_value"),
    "a list with NaN": ([float("nan")], "not_finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_wrong_vector_is_one_422_that_names_the_field(client: Client, fault: str) -> None:
    vector, code = FAULTS[fault]
    response = await client.post("/v1/search", json={"vector": vector})
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (422, code)
    assert "vector" in error["message"]
    assert "<" not in error["message"]
    details = error.get("details", [])
    assert len(details) <= 1
    assert [detail["field"] for detail in details] in ([], ["vector"], ["vector.0"])


async def test_octets_ask_for_the_same_as_a_batch_in_json(client: Client) -> None:
    options: dict[str, Any] = {"k": 2, "modality": "text", "min_score": -0.5, "include": ["text"]}
    queries = [{"vector": vector.tolist(), **options} for vector in VECTORS]
    expected = await answer_to(client, {"queries": queries}, "/v1/search/batch")
    parameters = {**options, "k": "2", "min_score": "-0.5", "include": "text"}
    response = await client.post(
        "/v1/search/batch", data=VECTORS.tobytes(), headers=OCTETS, params=parameters
    )
    assert response.status == 200, await response.text()
    assert (await response.read()).partition(b',"timings":')[0] == expected


async def test_octets_wait_for_the_offsets_that_they_name(client: Client) -> None:
    parameters = {"min_offsets": "content-uploads-0:999", "timeout_ms": "0"}
    response = await client.post(
        "/v1/search/batch", data=VECTORS.tobytes(), headers=OCTETS, params=parameters
    )
    assert (response.status, (await response.json())["error"]["code"]) == (503, "not_yet_covered")


WRONG_OCTETS = {
    "none": (b"", "", "wrong_dimension"),
    "half a vector": (VECTORS.tobytes()[: 6 * DIMENSION], "", "wrong_dimension"),
    "too many": (VECTORS[:1].tobytes() * 65, "", "out_of_range"),
    "NaN": (np.full((2, DIMENSION), np.nan, "<f4").tobytes(), "", "not_finite"),
    "zeros": (bytes(4 * DIMENSION), "", "zero_vector"),
    "no hits": (VECTORS.tobytes(), "k=0", "out_of_range"),
    "too many hits": (VECTORS[:1].tobytes() * 64, "k=101", "too_many_hits"),
    "another parameter": (VECTORS.tobytes(), "text=red", "unknown_field"),
    "a percentile": (VECTORS.tobytes(), "min_percentile=0.5", "unknown_field"),
    "a parameter twice": (VECTORS.tobytes(), "k=1&k=2", "invalid_value"),
}


@pytest.mark.parametrize("fault", WRONG_OCTETS)
async def test_wrong_octets_are_a_422(client: Client, fault: str) -> None:
    body, query, code = WRONG_OCTETS[fault]
    response = await client.post(f"/v1/search/batch?{query}", data=body, headers=OCTETS)
    assert (response.status, (await response.json())["error"]["code"]) == (422, code)


async def test_octets_may_be_compressed(client: Client) -> None:
    import gzip

    headers = {**OCTETS, "Content-Encoding": "gzip"}
    response = await client.post("/v1/search/batch", data=gzip.compress(VECTORS.tobytes()), headers=headers)
    assert len((await response.json())["answers"]) == len(VECTORS)


async def test_a_batch_of_another_type_is_told_both_types(client: Client) -> None:
    response = await client.post("/v1/search/batch", data=b"x", headers={"Content-Type": "image/png"})
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (415, "unsupported_media_type")
    assert "application/json" in error["message"]
    assert "application/octet-stream" in error["message"]
