"""What a running application holds; `build_app` puts it there."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from opentelemetry.trace import Tracer

from query_api.encoding.canary_probe import CanaryProbe
from query_api.encoding.query_encoder import QueryEncoder
from query_api.http.api_keys import Access
from query_api.live_listeners import LiveListeners
from query_api.page.files import Page
from query_api.percentiles.renewal import PercentileScales
from query_api.search.shared_searches import SharedSearches
from query_api.serving.served_index import ServedIndex
from query_api.serving.work_places import WorkPlaces
from query_api.serving.workers import Workers
from query_api.telemetry.metrics import Metrics
from query_api.telemetry.stages import Stages
from query_api.uploads.publishing import Uploads

SERVED_INDEX = web.AppKey("served_index", ServedIndex)
QUERY_ENCODER = web.AppKey("query_encoder", QueryEncoder)
UPLOADS = web.AppKey("uploads", Uploads)
ACCESS: web.AppKey[Mapping[tuple[str, str], Access]] = web.AppKey("access")  # by method and path
CURSOR_KEY: web.AppKey[str | None] = web.AppKey("cursor_key")
DOCUMENT = web.AppKey("document", str)  # OpenAPI, in JSON
TRACER: web.AppKey[Tracer | None] = web.AppKey("tracer")
SLOW_SECONDS = web.AppKey("slow_seconds", float)
ENDLESS = web.AppKey("endless", frozenset[str])  # paths whose answers go on
METRICS = web.AppKey("metrics", Metrics)
LIVE_LISTENERS = web.AppKey("live_listeners", LiveListeners)
PERCENTILE_SCALES: web.AppKey[PercentileScales | None] = web.AppKey("percentile_scales")
PAGE = web.AppKey("page", Page)
WORKERS = web.AppKey("workers", Workers)  # blocking work: prepare, search, columns, large bodies
CANARY_PROBE = web.AppKey("canary_probe", CanaryProbe)
WORK_PLACES = web.AppKey("work_places", WorkPlaces)
SHARED_SEARCHES = web.AppKey("shared_searches", SharedSearches)

STAGES = web.RequestKey("stages", Stages)
REQUEST_ID = web.RequestKey("request_id", str)
NEEDED_ACCESS: web.RequestKey[Access] = web.RequestKey("needed_access")
CALLER = web.RequestKey("caller", str)  # the digest of a known key, or an address
