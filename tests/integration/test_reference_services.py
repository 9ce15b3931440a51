"""The calls of two earlier services, made exactly as their clients make them."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import skimage
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from schemas.events import ImageContent, UploadEvent
from tests.consumer.running import World, upload
from tests.integration.pipeline import build_service, running_pipeline

Client = TestClient[Any, Any]
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
CAPTIONS = {
    "astronaut.png": "a portrait of an astronaut with the American flag",
    "chelsea.png": "a facial photo of a tabby cat",
    "coffee.png": "a cup of coffee on a saucer",
    "rocket.jpg": "a rocket standing on a launchpad",
}
NAMES = list(CAPTIONS)
OWNERS = {"astronaut.png": "1", "coffee.png": "1", "chelsea.png": "2", "rocket.jpg": "2"}


async def call(client: Client, path: str, body: bytes) -> tuple[int, Any]:
    """POST a raw body with no header except its length, as the clients of the first service do."""

    def send() -> tuple[int, Any]:
        connection = http.client.HTTPConnection(str(client.host), client.port, timeout=60)
        try:
            connection.request("POST", path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    return await asyncio.to_thread(send)


@pytest.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[tuple[World, Client]]:
    """Four photographs and their captions, uploaded by two users; texts and images have the same numbers."""
    async with running_pipeline(tmp_path / "index") as (world, client):
        for number, (name, caption) in enumerate(CAPTIONS.items()):
            who = f"id={number}&user={OWNERS[name]}"
            for kind, body in (("image", (PHOTOGRAPHS / name).read_bytes()), ("text", caption.encode())):
                status, answer = await call(client, f"/mv_retrieval/v0.1/add_content?{who}&type={kind}", body)
                assert status == 200, answer
                assert answer["msg"] == "added"
                assert answer["time"] > 0
        yield world, client


async def test_photographs_and_captions_of_two_users_are_retrieved_and_recommended(
    pipeline: tuple[World, Client],
) -> None:
    _, client = pipeline
    retrieve = "/mv_retrieval/v0.1/retrieve_contents"
    cat = (PHOTOGRAPHS / "chelsea.png").read_bytes()

    status, answer = await call(client, f"{retrieve}?k=3&type=image", cat)
    assert status == 200
    assert answer.keys() == {"text", "image"}
    assert answer["image"]["contents"][0] == str(NAMES.index("chelsea.png"))
    assert answer["image"]["scores"][0] == pytest.approx(1.0, abs=1e-3)
    assert answer["image"]["scores"] == sorted(answer["image"]["scores"], reverse=True)
    assert len(answer["text"]["contents"]) == 3

    _, answer = await call(client, f"{retrieve}?k=3&type=text", CAPTIONS["coffee.png"].encode())
    assert answer["text"]["contents"][0] == str(NAMES.index("coffee.png"))

    _, answer = await call(client, f"{retrieve}?k=99999&type=image&user=2", cat)
    theirs = {str(NAMES.index(name)) for name, owner in OWNERS.items() if owner == "1"}
    assert set(answer["image"]["contents"]) == set(answer["text"]["contents"]) == theirs

    recommend = "/mv_retrieval/v0.1/recommend_contents"
    _, answer = await call(client, f"{recommend}?k=5&user=1", b"")
    others = {str(NAMES.index(name)) for name, owner in OWNERS.items() if owner == "2"}
    for seed in ("text", "image"):
        for kind in ("text", "image"):
            assert set(answer[seed][kind]["contents"]) == others
            assert len(answer[seed][kind]["scores"]) == 2


async def test_without_a_user_or_a_history_nothing_is_recommended(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    nothing = {"contents": [], "scores": []}
    for who in ("", "&user=nobody", "&user="):
        status, answer = await call(client, f"/mv_retrieval/v0.1/recommend_contents?k=5{who}", b"")
        assert status == 200
        assert answer == {kind: {"text": nothing, "image": nothing} for kind in ("text", "image")}


async def test_what_one_process_added_the_next_call_finds_on_another(pipeline: tuple[World, Client]) -> None:
    world, client = pipeline
    app = build_service(world, reload_interval_seconds=3600.0)
    async with TestClient(TestServer(app)) as other:
        for number in range(5):
            text = f"a text of number {number}".encode()
            added, _ = await call(client, f"/mv_retrieval/v0.1/add_content?id=n{number}&type=text", text)
            _, answer = await call(other, "/mv_retrieval/v0.1/retrieve_contents?k=1&type=text", text)
            assert (added, answer["text"]["contents"]) == (200, [f"n{number}"])


BAD = {
    "no id": ("add_content?type=text", b"a", 422, "missing_field"),
    "no type": ("add_content?id=1", b"a", 422, "missing_field"),
    "another type": ("add_content?id=1&type=audio", b"a", 422, "invalid_value"),
    "an empty text": ("add_content?id=1&type=text", b"", 422, "empty_content"),
    "no text": ("add_content?id=1&type=text", b"\xff", 422, "not_unicode"),
    "no image": ("add_content?id=1&type=image", b"words", 415, "not_an_image"),
    "k below zero": ("retrieve_contents?k=-1&type=text", b"a", 422, "out_of_range"),
    "a query that is no text": ("retrieve_contents?k=1&type=text", b"\xff", 422, "not_unicode"),
    "a query that is no image": ("retrieve_contents?k=1&type=image", b"", 415, "not_an_image"),
    "recommend minus one": ("recommend_contents?k=-1", b"", 422, "out_of_range"),
}


async def test_a_bad_call_is_refused(pipeline: tuple[World, Client]) -> None:
    _, client = pipeline
    for path, body, status, code in BAD.values():
        answered, answer = await call(client, f"/mv_retrieval/v0.1/{path}", body)
        assert (answered, answer["error"]["code"]) == (status, code), path


HOSTILE = 'javascript:alert("1")'


@pytest.fixture
async def gallery(tmp_path: Path) -> AsyncIterator[Client]:
    """The photographs with links, and two images with links to which no browser may be sent."""
    async with running_pipeline(tmp_path / "index") as (world, client):
        links = {name: f"https://img.example/{name}?a=1&b=<\"'>" for name in NAMES}
        next_offset = 0
        for name in NAMES:
            image = ImageContent((PHOTOGRAPHS / name).read_bytes())
            next_offset = world.publish(with_link(f"<b>{name}</b>", image, links[name]))
        for name, link in (("hostile", HOSTILE), ("unlinked", None)):
            image = ImageContent((PHOTOGRAPHS / "coffee.png").read_bytes())
            next_offset = world.publish(with_link(name, image, link))
        params = {"q": "a", "min_offsets": f"uploads-0:{next_offset}", "timeout_ms": "60000"}
        assert (await client.get("/v1/search", params=params)).status == 200
        yield client


def with_link(content_id: str, image: ImageContent, link: str | None) -> UploadEvent:
    event = upload(content_id, image)
    return UploadEvent(
        event.event_id, content_id, event.source, event.occurred_at, image, version=None, link=link
    )


def image_form(name: str) -> FormData:
    form = FormData()
    form.add_field("image_file", (PHOTOGRAPHS / name).read_bytes(), filename=name, content_type="image/png")
    return form


async def test_the_links_of_the_best_images_are_answered_as_a_list(gallery: Client) -> None:
    by_text = await gallery.post("/text_url", params={"text_query": "a cup of coffee"})
    by_image = await gallery.post("/image_url", data=image_form("coffee.png"))
    for response in (by_text, by_image):
        assert response.status == 200
        links = await response.json()
        assert len(links) == len(NAMES)
        assert all(link.startswith("https://img.example/") for link in links)
    assert links[0].startswith("https://img.example/coffee.png")


async def test_the_gallery_escapes_what_came_from_events_and_sends_no_referrer(gallery: Client) -> None:
    title = '<script>alert("title")</script>'
    by_text = await gallery.post("/display_text", params={"text_query": title})
    by_image = await gallery.post("/display_image", data=image_form("coffee.png"))
    for response in (by_text, by_image):
        page = await response.text()
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "<script" not in page
        assert "<b>" not in page
        assert "javascript:" not in page
        assert page.count('rel="noreferrer') == page.count("<img ") == len(NAMES)
        assert "https://img.example/coffee.png?a=1&amp;b=&lt;&quot;&#x27;&gt;" in page


async def test_a_call_without_its_query_is_refused(gallery: Client) -> None:
    without = FormData({"other": "x"}, default_to_multipart=True)
    calls = [
        (await gallery.post("/text_url"), 422, "missing_field"),
        (await gallery.post("/display_text", params={"text": "red"}), 422, "missing_field"),
        (await gallery.post("/image_url", data=b"\xff\xd8"), 415, "unsupported_media_type"),
        (
            await gallery.post("/display_image", data=without),
            422,
            "missing_field",
        ),
    ]
    for response, status, code in calls:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)
