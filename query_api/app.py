"""The application: what requests are answered with, what runs beside them, and the routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache, partial

from aiohttp import web
from aiohttp.typedefs import Middleware
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from clip_index.encoder.protocol import Encoder
from event_log.publisher import Publisher
from query_api.api_docs import DOCUMENT, DocumentOf
from query_api.compat.html_gallery import gallery_headers
from query_api.compat.links import GALLERY_HEADERS
from query_api.contents.live_routes import LIVE_STREAMS, LiveStreams
from query_api.contents.small_thumbnails import SMALL_THUMBNAILS, SmallThumbnails
from query_api.contract.document.flat_document import flat_document
from query_api.contract.document.openapi import build_document
from query_api.contract.route import ACCESS, ENDLESS
from query_api.encoding.query_encoder import QueryEncoderSettings
from query_api.http.answer_headers import add_headers
from query_api.http.bodies.inflation import KEEP_COMPRESSED
from query_api.http.bodies.reading import MAX_JSON_BYTES
from query_api.http.bodies.receiver import BodyReceiver
from query_api.http.connections.stopping import STOPPING, Stopping
from query_api.http.entrance import Entrance
from query_api.http.guards.access import build_access_check
from query_api.http.guards.api_keys import ApiKeys
from query_api.http.guards.concurrency_limit import ConcurrencyLimit
from query_api.http.guards.cors import build_cors
from query_api.http.guards.host_check import build_host_check
from query_api.http.guards.rate_limit import RateLimit, build_rate_limit, build_refusal_limit
from query_api.page.files import PAGE, PageSettings, read_page
from query_api.recommend.owner_interests import OWNER_INTERESTS, OwnerInterests
from query_api.route_table import ROUTES
from query_api.search.paging.cursors import CURSOR_KEY
from query_api.search.query_sample import QUERY_SAMPLE, QuerySample, QuerySampleSettings
from query_api.search.quick_searches import DEFAULT_SECONDS, QuickSearches
from query_api.search.recall_watch import RECALL_WATCH, RecallSettings, RecallWatch
from query_api.search.shared_searches import SHARED_SEARCHES, SharedSearches
from query_api.serving.background_job import BACKGROUND_JOBS, BackgroundJobs
from query_api.serving.engine import Reader
from query_api.serving.request_slots import DEFAULT_WAITING, REQUEST_SLOTS, SLOTS_PER_CORE, RequestSlots
from query_api.serving.workers import WORKERS, Workers
from query_api.swap.candidates import Candidates
from query_api.swap.holding import hold_pair
from query_api.swap.index_swap import INDEX_SWAP, IndexSwap
from query_api.swap.served_pair import PairSettings, RunningEncoder, ServedPair, SharedParts
from query_api.telemetry.metrics import METRICS, Metrics
from query_api.telemetry.stages import HAS_ACCESS_LOG, SLOW_SECONDS
from query_api.telemetry.tracing import TRACER
from query_api.uploads.publishing import EVENT_PUBLISHER, EventPublisher, PublishSettings
from service.process.processors import num_processors


@dataclass(frozen=True, slots=True)
class AppSettings:
    """How one process serves. `num_workers` threads prepare contents, search, and read columns."""

    max_body_bytes: int = 16 * 2**20
    max_json_bytes: int = 2**20
    num_workers: int = field(default_factory=lambda: num_processors() + 2)
    loop_search_seconds: float = DEFAULT_SECONDS
    reload_interval_seconds: float = 0.01
    cursor_key: str | None = None
    query_encoder: QueryEncoderSettings = field(default_factory=QueryEncoderSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    keys: ApiKeys = field(default_factory=ApiKeys)
    cors_origins: frozenset[str] = frozenset()
    host_names: frozenset[str] = frozenset()
    rate_limit: RateLimit = field(default_factory=RateLimit)
    receive_timeout_seconds: float = 20.0
    max_concurrent_requests: int | None = None
    queue_seconds: float = 5.0
    max_wait_seconds: float = 60.0
    answer_seconds: float = 60.0
    slow_seconds: float = 1.0
    has_access_log: bool = False
    link_hosts: tuple[str, ...] = ()
    has_percentiles: bool = True
    scrub_seconds: float | None = None
    recall: RecallSettings = field(default_factory=RecallSettings)
    query_sample: QuerySampleSettings = field(default_factory=QuerySampleSettings)

    @property
    def pair(self) -> PairSettings:
        return PairSettings(
            query_encoder=self.query_encoder,
            reload_interval_seconds=self.reload_interval_seconds,
            max_wait_seconds=self.max_wait_seconds,
            has_percentiles=self.has_percentiles,
            scrub_seconds=self.scrub_seconds,
        )


def build_app(
    encoder: Encoder,
    reader: Reader,
    registry: CollectorRegistry,
    settings: AppSettings,
    *,
    publisher: Publisher | None = None,
    tracer: Tracer | None = None,
    candidates: Candidates | None = None,
) -> web.Application:
    """Build the query service around an encoder and a reader with the same fingerprint.

    The reader may have no index yet. The service then starts, is not ready, and waits for one.
    With `candidates` it serves, from the moment at which the root names another index, that one.
    Without a publisher, uploads are disabled. The caller closes the publisher.
    """
    app = web.Application(
        middlewares=build_middlewares(settings),
        client_max_size=settings.max_body_bytes,
        handler_args=KEEP_COMPRESSED,
    )
    app[METRICS] = Metrics(registry)
    app.on_response_prepare.append(add_headers)
    app[MAX_JSON_BYTES] = settings.max_json_bytes
    app[TRACER] = tracer
    app[SLOW_SECONDS] = settings.slow_seconds
    app[HAS_ACCESS_LOG] = settings.has_access_log
    app[STOPPING] = Stopping()
    app[SMALL_THUMBNAILS] = SmallThumbnails()
    app[REQUEST_SLOTS] = build_request_slots(settings)
    shared = _add_search(app, settings)
    first = ServedPair(RunningEncoder(encoder, shared), reader, shared)
    app[INDEX_SWAP] = IndexSwap(first, shared, candidates)
    app[EVENT_PUBLISHER] = EventPublisher(publisher, app[WORKERS], settings.publish)
    app[GALLERY_HEADERS] = gallery_headers(settings.link_hosts)
    app[PAGE] = read_page(PageSettings(settings.link_hosts, can_publish=publisher is not None))
    _add_background_jobs(app)
    _add_routes(app, needs_key=settings.keys.are_required)
    return app


def _add_search(app: web.Application, settings: AppSettings) -> SharedParts:
    """Add what searches need beside an index and its encoder; return what all pairs of them share."""
    workers = app[WORKERS] = Workers(settings.num_workers)
    num_at_once = max(1, settings.num_workers - 2)
    quick = QuickSearches(
        app[REQUEST_SLOTS], workers, settings.loop_search_seconds, has_one_processor=num_at_once == 1
    )
    app[BACKGROUND_JOBS] = BackgroundJobs()
    app[SHARED_SEARCHES] = SharedSearches(workers, num_at_once, quick)
    app[RECALL_WATCH] = RecallWatch(app[METRICS], settings.recall) if settings.recall.every else None
    app[QUERY_SAMPLE] = QuerySample(settings.query_sample)
    app[OWNER_INTERESTS] = OwnerInterests()
    app[CURSOR_KEY] = settings.cursor_key
    return SharedParts(workers, app[METRICS], app[BACKGROUND_JOBS], settings.pair, app[TRACER])


def _add_background_jobs(app: web.Application) -> None:
    """Add what runs beside the requests. aiohttp starts it in this order and stops it in reverse."""
    app[LIVE_STREAMS] = live_streams = LiveStreams()
    app.on_shutdown.append(live_streams.stop)
    app.cleanup_ctx.append(_run_workers)
    if (watch := app[RECALL_WATCH]) is not None:
        app[BACKGROUND_JOBS].add(watch.job)
        app.cleanup_ctx.append(lambda _: watch.watching())
        app[INDEX_SWAP].when_swapped = watch.begin_again
    app.cleanup_ctx.append(lambda app: app[INDEX_SWAP].running())


def build_request_slots(settings: AppSettings) -> RequestSlots:
    if settings.max_concurrent_requests is None:
        return RequestSlots(SLOTS_PER_CORE * num_processors(), settings.queue_seconds, DEFAULT_WAITING)
    return RequestSlots(settings.max_concurrent_requests, settings.queue_seconds)


async def _run_workers(app: web.Application) -> AsyncIterator[None]:
    async with app[WORKERS].until_end():
        yield


def _add_routes(app: web.Application, *, needs_key: bool) -> None:
    """Add the routes, what the middlewares need to know of them, and the document that describes them."""
    # For each dimension one, because a swap may bring another.
    document_of: DocumentOf = cache(partial(_write_document, needs_key=needs_key))
    app[DOCUMENT] = document_of
    app[ENDLESS] = frozenset(route.path for route in ROUTES if route.is_endless)
    app[ACCESS] = {route.key: route.access for route in ROUTES}
    app.add_routes([route.definition() for route in ROUTES])


def _write_document(dimension: int, *, needs_key: bool) -> str:
    document = build_document(ROUTES, needs_key=needs_key, dimension=dimension)
    return json.dumps(flat_document(document))


def build_middlewares(settings: AppSettings) -> list[Middleware]:
    """Build the one middleware that every request passes, and the one that answers foreign web pages."""
    check_access = build_access_check(settings.keys, settings.cors_origins)
    guards = [
        *([] if settings.keys.are_required else [build_host_check(settings.host_names)]),
        build_refusal_limit(check_access),
        build_rate_limit(settings.rate_limit),
    ]
    receiver = BodyReceiver(settings.receive_timeout_seconds)
    limit = ConcurrencyLimit(settings.answer_seconds + settings.max_wait_seconds)
    enter = Entrance(guards, receiver, limit, hold_pair).middleware()
    return [build_cors(settings.cors_origins), enter] if settings.cors_origins else [enter]
