"""A browser, and two services over one growing index: one without API keys, one with them."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from aiohttp import web

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import make_thumbnail
from consumer.preparation.steps import PreparationOptions
from fakes.hash_encoder import draw_picture
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from query_api.http.guards.api_keys import ApiKeys
from schemas.events import ImageContent, TextContent, UploadEvent
from tests.consumer.running import World, upload
from tests.integration.pipeline import build_service

API_KEY = "a key of the tests"
OWNERS = ("ann", "bob", "cem")
NUM_PICTURES = 130
PATIENCE_MS = 60_000  # long, because a busy machine is slow; only a test that fails waits so long
NUM_CROWDED = 1100
TEXTS = {
    "t-red-dress": "a red dress with buttons",
    "t-red-hat": "a red hat",
    "t-blue-coat": "a blue coat",
    "t-hostile": "<img src=x onerror=alert(1)> hostile words",
}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True, slots=True)
class Site:
    """The addresses of the page, with and without keys, and the pipeline behind it."""

    world: World
    address: str
    guarded_address: str

    def wait_until_served(self, content_id: str) -> None:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self._is_served(content_id):
            assert time.monotonic() < deadline, f"{content_id} was not served"
            time.sleep(0.02)

    def _is_served(self, content_id: str) -> bool:
        try:
            with urlopen(f"{self.address}/v1/contents/{content_id}") as answer:
                return bool(answer.status == 200)
        except HTTPError as error:
            if error.code != 404:
                raise
            return False


@dataclass(slots=True)
class Watched:
    """A page in the browser, with everything that it logged and requested."""

    page: Any
    address: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def attach(self) -> None:
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def check(self) -> None:
        """Assert that the page had no error and requested nothing from another host."""
        assert self.errors == []
        assert self.hosts - {""} <= {urlsplit(self.address).netloc}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for one module. It ends with the module, because its driver blocks other event loops."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine: make system-deps")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A consumer that keeps thumbnails, with 130 pictures and a few texts of three owners."""
    thumbnails = PreparationOptions(make_thumbnail=partial(make_thumbnail, side=32, limits=ImageLimits()))
    world = World(tmp_path_factory.mktemp("page") / "index", num_partitions=2)
    world.set_options(preparation=thumbnails)
    with world.running():
        next_offsets = [publish_picture(world, number) for number in range(NUM_PICTURES)]
        for content_id, text in TEXTS.items():
            world.publish(_event(content_id, TextContent(text), link="javascript:alert(1)"), partition=1)
        world.wait_committed(next_offsets[-1], partition=0)
        world.wait_committed(len(TEXTS), partition=1)
        digest = hashlib.sha256(API_KEY.encode()).digest()
        keys = ApiKeys(read=frozenset({digest}), write=frozenset({digest}))
        with serving(build_service(world)) as address, serving(build_service(world, keys=keys)) as guarded:
            yield Site(world, address, guarded)


@pytest.fixture(scope="module")
def crowded_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with more texts than one answer may hold."""
    world = World(tmp_path_factory.mktemp("crowded") / "index", num_partitions=1)
    with world.running():
        for number in range(NUM_CROWDED):
            next_offset = world.publish(upload(f"t-{number:04d}"))
        world.wait_committed(next_offset)
        with serving(build_service(world)) as address:
            yield Site(world, address, guarded_address="")


@pytest.fixture
def watched(chromium: Any, site: Site) -> Iterator[Watched]:
    """The page in a window of its own. It must have no errors at the end."""
    with open_page(chromium, site.address) as watched:
        watched.page.goto(site.address)
        yield watched
        watched.check()


@contextmanager
def open_page(chromium: Any, address: str, **context: Any) -> Iterator[Watched]:
    with chromium.new_context(**context) as window:
        watched = Watched(window.new_page(), address)
        watched.page.set_default_timeout(PATIENCE_MS)
        watched.attach()
        yield watched


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """Serve in a thread with its own event loop, because the browser's driver blocks the one here."""
    loop, has_begun, places = asyncio.new_event_loop(), threading.Event(), []
    stopping = asyncio.Event()

    async def serve() -> None:
        async with listening(app, Address("127.0.0.1", 0), ConnectionLimits()) as place:
            places.append(f"http://{place}")
            has_begun.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], name="service")
    thread.start()
    try:
        assert has_begun.wait(PATIENCE_MS / 1000)
        yield places[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(PATIENCE_MS / 1000)
        loop.close()


def publish_picture(world: World, number: int) -> int:
    event = _event(f"p-{number:03d}", ImageContent(draw_picture(number)), owner_id=OWNERS[number % 3])
    return world.publish(event, partition=0)


def _event(content_id: str, content: Any, **fields: Any) -> UploadEvent:
    return replace(upload(content_id, content), **fields)
