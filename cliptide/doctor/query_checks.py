"""Asks the query service, if one is running."""

from __future__ import annotations

from collections.abc import Iterator

from cliptide.doctor.findings import Finding, failed, ok, warning
from cliptide.searching.query_client import QueryClient, QueryServiceAway, QueryServiceError
from cliptide.terminal.waiting import waiting_told

TIMEOUT_SECONDS = 10.0


def check_query_service(url: str, api_key: str | None) -> Iterator[Finding]:
    """Ask for the index. A service that is not running is no failure: it may be started after this."""
    try:
        with waiting_told(f"the query service at {url}"):
            state = QueryClient(url, api_key, TIMEOUT_SECONDS).index()
    except QueryServiceAway as error:
        yield warning("query service", str(error), "start it (cliptide serve), or correct CLIPTIDE_QUERY_URL")
    except QueryServiceError as error:
        yield failed("query service", str(error), "correct CLIPTIDE_QUERY_URL and CLIPTIDE_API_KEY")
    else:
        shards = f"{len(state.next_offsets)} shards, {state.num_contents:,} contents"
        yield ok("query service", f"{url} serves {shards}")
