"""A whole pipeline in one process: a log in memory, a consumer in its threads, a query service over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from clip_index.reading.index_reader import IndexReader
from event_log.memory.clients import MemoryPublisher
from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.uploads.publishing import PublishSettings
from tests.consumer.running import TOPIC, World


def build_service(world: World, *, tracer: Tracer | None = None, **settings: Any) -> web.Application:
    """Build a query service over the world's index, which publishes to the world's log."""
    reader = IndexReader(world.root, fingerprint=HashEncoder().fingerprint)
    reader.reload()
    return build_app(
        HashEncoder(),
        reader,
        CollectorRegistry(),
        AppSettings(publish=PublishSettings(topic=TOPIC), **settings),
        publisher=MemoryPublisher(world.log),
        tracer=tracer,
    )


@asynccontextmanager
async def running_pipeline(root: Path, **settings: Any) -> AsyncIterator[tuple[World, TestClient[Any, Any]]]:
    """Start a consumer of two partitions and a query service. Yields a client of the service."""
    world = World(root, num_partitions=2)
    with world.running():
        async with TestClient(TestServer(build_service(world, **settings))) as client:
            yield world, client
