"""A picture is taken in the same forms wherever the service takes one."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from event_log.memory.clients import MemoryLog, MemoryPublisher
from fakes.hash_encoder import draw_picture
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
PNG = draw_picture(2)
IN_BASE64 = {
    "plain": base64.b64encode(PNG).decode(),
    "URL-safe and unpadded": base64.urlsafe_b64encode(PNG).decode().rstrip("="),
    "in lines": base64.encodebytes(PNG).decode(),
    "a data URL": "data:image/png;base64," + base64.b64encode(PNG).decode(),
}
BODIES = {
    "/v1/search": lambda image: {"image": image, "modality": "image"},
    "/v1/embed": lambda image: {"contents": [{"image": image}]},
    "/v1/recommend": lambda image: {"positive": [{"image": image}]},
    "/v1/contents": lambda image: {"content_id": "p", "content": {"image": image}},
}


@pytest.fixture
async def client(small_index: SmallIndex, start_service: StartService) -> Client:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    return await start_service(small_index, publisher=MemoryPublisher(log))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("image", IN_BASE64.values(), ids=IN_BASE64)
async def test_every_json_body_takes_base64_in_every_form(client: Client, path: str, image: str) -> None:
    response = await client.post(path, json=BODIES[path](image))
    assert response.status in (200, 202), await response.text()


FORMS = {
    "/v1/search": ("image", {}),
    "/v1/contents": ("image", {"content_id": "p"}),
    "/image_url": ("image_file", {}),
}


@pytest.mark.parametrize("path", FORMS)
async def test_every_form_takes_the_data_url_that_a_web_page_has(client: Client, path: str) -> None:
    name, fields = FORMS[path]
    form = FormData(fields, default_to_multipart=True)
    form.add_field(name, IN_BASE64["a data URL"])
    response = await client.post(path, data=form)
    assert response.status in (200, 202), await response.text()
