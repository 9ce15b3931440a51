"""The link services take what their earlier clients send, and pass over what they do not know."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from fakes.hash_encoder import draw_picture

Client = TestClient[Any, Any]


def form_of(**fields: str) -> FormData:
    form = FormData(fields, default_to_multipart=True)
    form.add_field("image_file", draw_picture(1), filename="p.png", content_type="image/png")
    return form


async def test_unknown_parameters_and_parts_are_passed_over(client: Client) -> None:
    by_text = await client.post("/text_url", params={"text_query": "red", "k": "3", "model": "x"})
    by_image = await client.post("/image_url?top=5", data=form_of(user="ann", submit="Search"))
    for response in (by_text, by_image):
        assert response.status == 200, await response.text()
        assert sorted(await response.json()) == [f"https://x.test/{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("text", ["", " "])
async def test_an_empty_text_finds_nothing(client: Client, text: str) -> None:
    links = await client.post("/text_url", params={"text_query": text})
    page = await client.post("/display_text", params={"text_query": text})
    assert (links.status, page.status) == (200, 200)
    assert await links.json() == []
    assert "nothing found" in await page.text()


async def test_a_form_without_the_picture_is_told_what_it_has(client: Client) -> None:
    form = FormData({"other": "x"}, default_to_multipart=True)
    form.add_field("file", draw_picture(1), filename="p.png")
    response = await client.post("/image_url", data=form)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (422, "missing_field")
    assert error["message"] == "the form needs a field image_file; it has file, other"
