"""What is said to a request whose address or method is not served: where to go instead."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

_READY = "/readyz says whether the service answers searches, /livez whether its process lives"
_ALL = "all routes are listed at /docs"
_MEANT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("health", "healthz", "healthcheck", "health_check", "status", "ping"), _READY),
        **dict.fromkeys(("ready", "readiness", "live", "liveness", "alive", "up", "-"), _READY),
        "metrics": "the metrics have a listener of their own: CLIPTIDE_QUERY_API__METRICS_PORT",
        **dict.fromkeys(("search", "_search", "query", "knn"), "did you mean POST /v1/search?"),
        **dict.fromkeys(("_knn_search", "knn-service"), "did you mean POST /v1/search?"),
        **dict.fromkeys(("_msearch", "query/batch", "search/batch"), "did you mean POST /v1/search/batch?"),
        **dict.fromkeys(("payload", "_update"), "did you mean PATCH /v1/contents/{content_id}?"),
        **dict.fromkeys(("recommend", "recommendations", "mlt"), "did you mean POST /v1/recommend?"),
        **dict.fromkeys(("embed", "embeddings", "encode"), "did you mean POST /v1/embed?"),
        **dict.fromkeys(("contents", "points", "documents", "_doc", "_bulk"), "did you mean /v1/contents?"),
        **dict.fromkeys(("browse", "scroll", "_scroll"), "did you mean POST /v1/browse?"),
        **dict.fromkeys(("count", "counts", "_count"), "did you mean POST /v1/counts?"),
        **dict.fromkeys(("facet", "facets", "aggs", "aggregations"), "did you mean POST /v1/facets?"),
        **dict.fromkeys(("delete", "_delete_by_query"), "did you mean POST /v1/contents/delete?"),
        **dict.fromkeys(("index", "indexes", "collections", "info"), "did you mean GET /v1/index?"),
        **dict.fromkeys(("_cat", "indices-list"), "did you mean GET /v1/index?"),
        **dict.fromkeys(("swagger", "redoc", "api", "api-docs", "openapi"), "the API is described at /docs"),
        **dict.fromkeys(("openapi.yaml", "swagger.json"), "the document is at /openapi.json"),
    }
)


_CONTENTS = "/v1/contents/"
_CHANGING = ("POST", "PUT")


def no_such_route(path: str) -> str:
    """Return the message of a 404. It repeats nothing of the address."""
    parts = [part.lower() for part in path.split("/") if part]
    pairs = ["/".join(pair) for pair in pairwise(parts)]
    meant = next((_MEANT[name] for name in (*pairs, *reversed(parts)) if name in _MEANT), _ALL)
    return f"there is no such route; {meant}"


def wrong_method(allowed: str, method: str = "", path: str = "") -> str:
    """Return the message of a 405. HEAD is left out, because it goes wherever GET does."""
    methods = {one.strip() for one in allowed.split(",")} - {"HEAD"}
    message = f"this route takes {' and '.join(sorted(methods))}"
    if method in _CHANGING and path.startswith(_CONTENTS):
        message += f"; to add or to replace a content, POST it to {_CONTENTS.rstrip('/')} with its content_id"
    return message
