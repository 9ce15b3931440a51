"""The application: what it holds, what runs beside the requests, and its routes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Middleware
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from clip_index.encoder.protocol import Encoder
from clip_index.reading.index_reader import IndexReader
from event_log.publisher import Publisher
from query_api.api_docs import DOCUMENT
from query_api.contents.live_routes import LIVE_STREAMS, LiveStreams
from query_api.contract.openapi import build_document
from query_api.contract.route import ACCESS, ENDLESS
from query_api.encoding.canary_probe import CANARY_PROBE, CanaryProbe
from query_api.encoding.query_encoder import QUERY_ENCODER, QueryEncoder, QueryEncoderSettings
from query_api.http.access import build_access_check
from query_api.http.api_keys import ApiKeys
from query_api.http.body_receiver import build_body_receiver
from query_api.http.concurrency_limit import limit_concurrency
from query_api.http.cors import build_cors
from query_api.http.middlewares import answer_errors, observe
from query_api.http.rate_limit import RateLimit, build_rate_limit
from query_api.page.files import PAGE, PageSettings, read_page
from query_api.percentiles.renewal import PERCENTILE_SCALES, PercentileScales
from query_api.route_table import ROUTES
from query_api.search.cursors import CURSOR_KEY
from query_api.search.shared_searches import SHARED_SEARCHES, SharedSearches
from query_api.serving.scrub import Scrub
from query_api.serving.served_index import SERVED_INDEX, ServedIndex
from query_api.serving.work_places import WORK_PLACES, WorkPlaces
from query_api.serving.workers import WORKERS, Workers
from query_api.telemetry.metrics import METRICS, Metrics
from query_api.telemetry.stages import SLOW_SECONDS
from query_api.telemetry.tracing import TRACER
from query_api.uploads.publishing import EVENT_PUBLISHER, EventPublisher, PublishSettings


@dataclass(frozen=True, slots=True)
class AppSettings:
    """How one process serves. `num_workers` threads prepare, search and read columns."""

    max_body_bytes: int = 16 * 2**20
    num_workers: int = field(default_factory=lambda: (os.cpu_count() or 1) + 2)
    reload_interval_seconds: float = 0.05
    cursor_key: str | None = None
    query_encoder: QueryEncoderSettings = field(default_factory=QueryEncoderSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    keys: ApiKeys = field(default_factory=ApiKeys)
    cors_origins: frozenset[str] = frozenset()
    rate_limit: RateLimit = field(default_factory=RateLimit)
    receive_timeout_seconds: float = 20.0
    max_concurrent_requests: int = 128
    max_wait_seconds: float = 60.0
    slow_seconds: float = 1.0
    link_hosts: tuple[str, ...] = ()
    has_percentiles: bool = True
    scrub_seconds: float | None = None


def build_app(
    encoder: Encoder,
    reader: IndexReader,
    registry: CollectorRegistry,
    settings: AppSettings,
    *,
    publisher: Publisher | None = None,
    tracer: Tracer | None = None,
) -> web.Application:
    """Build the query service around an encoder and a reader of the same fingerprint.

    The reader may have no index yet: the service then serves, is not ready, and waits.
    Without a publisher it takes no uploads. The caller closes the publisher.
    """
    metrics = Metrics(registry)
    workers = Workers(settings.num_workers)
    query_encoder = QueryEncoder(encoder, workers, metrics, settings.query_encoder)
    served_index = ServedIndex(reader, metrics, settings.max_wait_seconds)
    percentile_scales = PercentileScales(served_index, query_encoder)

    async def run_workers(_: web.Application) -> AsyncIterator[None]:
        with workers:
            yield

    async def run_encoder(_: web.Application) -> AsyncIterator[None]:
        async with query_encoder.running():
            yield

    async def run_reloads(_: web.Application) -> AsyncIterator[None]:
        async with served_index.reloading(settings.reload_interval_seconds):
            yield

    async def run_percentiles(_: web.Application) -> AsyncIterator[None]:
        async with percentile_scales.renewing():
            yield

    app = web.Application(middlewares=build_middlewares(settings), client_max_size=settings.max_body_bytes)
    app[METRICS] = metrics
    app[WORKERS] = workers
    app[QUERY_ENCODER] = query_encoder
    app[SERVED_INDEX] = served_index
    app[PERCENTILE_SCALES] = percentile_scales if settings.has_percentiles else None
    app[CURSOR_KEY] = settings.cursor_key
    app[CANARY_PROBE] = CanaryProbe(query_encoder)
    app[WORK_PLACES] = WorkPlaces(settings.max_concurrent_requests)
    app[SHARED_SEARCHES] = SharedSearches(workers, max(1, settings.num_workers - 2))
    app[EVENT_PUBLISHER] = EventPublisher(publisher, workers, settings.publish)
    app[PAGE] = read_page(PageSettings(settings.link_hosts, can_publish=publisher is not None))
    app[LIVE_STREAMS] = live_streams = LiveStreams()
    app.on_shutdown.append(live_streams.stop)
    app.cleanup_ctx.extend([run_workers, run_encoder, run_reloads])
    if settings.has_percentiles:
        app.cleanup_ctx.append(run_percentiles)
    if settings.scrub_seconds is not None:
        scrub = Scrub(reader, metrics, settings.scrub_seconds)
        app.cleanup_ctx.append(lambda _: scrub.scrubbing())
    app[TRACER] = tracer
    app[SLOW_SECONDS] = settings.slow_seconds
    _add_routes(app, needs_key=settings.keys.are_required, dimension=encoder.fingerprint.dimension)
    return app


def _add_routes(app: web.Application, *, needs_key: bool, dimension: int) -> None:
    """Add the table's routes, what the middlewares know of them, and the document that describes them."""
    app[DOCUMENT] = json.dumps(build_document(ROUTES, needs_key=needs_key, dimension=dimension))
    app[ENDLESS] = frozenset(route.path for route in ROUTES if route.is_endless)
    app[ACCESS] = {route.key: route.access for route in ROUTES}
    app.add_routes([route.definition() for route in ROUTES])


def build_middlewares(settings: AppSettings) -> list[Middleware]:
    """Build what a request passes on its way in: cheap refusals first, the body only after them."""
    middlewares = [
        observe,
        answer_errors,
        build_access_check(settings.keys, settings.cors_origins),
        build_rate_limit(settings.rate_limit),
        build_body_receiver(settings.receive_timeout_seconds),
        limit_concurrency,
    ]
    return [build_cors(settings.cors_origins), *middlewares] if settings.cors_origins else middlewares
