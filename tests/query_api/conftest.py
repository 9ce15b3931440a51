"""A running query service over a small index, for each test its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp.test_utils import TestClient
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest

from clip_index.errors import IndexMissing
from clip_index.searching.searcher import Searcher
from event_log.publisher import Publisher
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.app import AppSettings, build_app
from query_api.errors import ErrorDetail
from query_api.serving import served_index
from query_api.serving.served_index import missing_offsets
from query_api.telemetry.metrics import METRICS
from tests.query_api.small_index import OCCURRED_AT_MS, SmallIndex

SETTINGS = {"reload_interval_seconds": 0.01, "max_body_bytes": 1 << 20, "has_percentiles": False}
StartService: TypeAlias = Callable[..., Awaitable[TestClient[Any, Any]]]


@pytest.fixture(scope="session")
def _filled_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = SmallIndex(tmp_path_factory.mktemp("filled") / "index").create()
    index.commit(
        0,
        index.text("t-red", "a red dress", owner_id="ann", metadata={"price": 12.5, "new": True}),
        index.text("t-blue", "a blue coat with buttons", version=7),
        index.text("t-shoe", "white running shoes"),
        watermark_ms=OCCURRED_AT_MS,
    )
    pictures = [index.image(f"p-{n}", draw_picture(n), link=f"https://x.test/{n}") for n in (1, 2, 3)]
    index.commit(1, *pictures)
    return index.root


@pytest.fixture
def small_index(_filled_root: Path, tmp_path: Path) -> SmallIndex:
    """Two shards: three texts in the first, three pictures in the second. Each test has its own copy."""
    shutil.copytree(_filled_root, tmp_path / "index")
    return SmallIndex(tmp_path / "index").open()


@pytest.fixture
def start_service(aiohttp_client: Any) -> StartService:
    """A factory: start a service over a `SmallIndex`, with another encoder or other settings if wished."""

    async def start(
        index: SmallIndex,
        *,
        encoder: Any = None,
        publisher: Publisher | None = None,
        tracer: Tracer | None = None,
        **settings: Any,
    ) -> TestClient[Any, Any]:
        reader = index.open_reader()
        with contextlib.suppress(IndexMissing):
            reader.reload()
        app = build_app(
            encoder or HashEncoder(),
            reader,
            CollectorRegistry(),
            AppSettings(**{**SETTINGS, **settings}),
            publisher=publisher,
            tracer=tracer,
        )
        client: TestClient[Any, Any] = await aiohttp_client(app)
        return client

    return start


@pytest.fixture
async def client(small_index: SmallIndex, start_service: StartService) -> TestClient[Any, Any]:
    return await start_service(small_index)


@pytest.fixture
def has_to_wait(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set as soon as a request has seen that the index does not cover yet what it demands."""
    event = asyncio.Event()

    def look(searcher: Searcher, min_offsets: Mapping[str, int]) -> list[ErrorDetail]:
        missing = missing_offsets(searcher, min_offsets)
        if missing:
            event.set()
        return missing

    monkeypatch.setattr(served_index, "missing_offsets", look)
    return event


def metrics_of(client: TestClient[Any, Any]) -> str:
    """What a scrape of the service would read."""
    assert client.app is not None
    return generate_latest(client.app[METRICS].registry).decode()
