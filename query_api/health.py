"""`/livez` and `/readyz`, for whatever supervises the service."""

from __future__ import annotations

from aiohttp import web

from query_api.contract.models import ReadyAnswer, StatusAnswer
from query_api.contract.route import Route
from query_api.errors import ApiError
from query_api.http.connections.stopping import STOPPING
from query_api.http.json_answer import json_answer
from query_api.serving.background_job import BACKGROUND_JOBS
from query_api.serving.served_index import STALLED_SECONDS, ServedIndex
from query_api.serving.workers import STUCK_SECONDS, WORKERS, Workers
from query_api.swap.index_swap import INDEX_SWAP
from query_api.swap.served_pair import SERVED

HANGS_SECONDS = 5 * STALLED_SECONDS  # so long, because a restart does not make a slow disk faster
RETRY_AFTER = {"Retry-After": "1"}


async def get_livez(request: web.Request) -> web.Response:
    """Answer 200 while reload loop, encoder loop and workers go on. A 503 means: restart the service."""
    workers = request.app[WORKERS]
    if workers.num_running_for(HANGS_SECONDS) >= workers.num_threads:
        message = f"every worker thread has been in one call for {HANGS_SECONDS:.0f} s"
        raise ApiError("workers_stuck", message, headers=RETRY_AFTER)
    served, encoder = request[SERVED].index, request[SERVED].encoder
    if not served.is_reloading:
        raise ApiError("reload_stopped", "the reload loop has ended", headers=RETRY_AFTER)
    if served.seconds_looking > HANGS_SECONDS:
        raise ApiError("reload_stopped", _looking(served), headers=RETRY_AFTER)
    if not encoder.is_running:
        raise ApiError("encoder_stopped", "the encoder loop has ended", headers=RETRY_AFTER)
    if encoder.seconds_encoding > HANGS_SECONDS:
        message = f"the encoder works on one batch for {encoder.seconds_encoding:.0f} s"
        raise ApiError("encoder_stopped", message, headers=RETRY_AFTER)
    return _ok()


async def get_readyz(request: web.Request) -> web.Response:
    """Answer 200 when there is an index, and the encoder gives embeddings that are sound and fit it.

    A 503 means: wait. Everybody may ask, so the answer names no path.
    """
    if request.app[STOPPING].has_begun:
        raise ApiError("not_ready", "the service is stopping", headers=RETRY_AFTER)
    served = request[SERVED].index
    if not served.has_searcher:
        why = "the log says why" if served.last_failure else "the first reload is not done"
        raise ApiError("not_ready", f"there is no index to search yet: {why}", headers=RETRY_AFTER)
    if served.seconds_looking > STALLED_SECONDS:
        raise ApiError("not_ready", _looking(served), headers=RETRY_AFTER)
    if request.app[WORKERS].are_stuck:
        message = f"every worker thread has been in one call for {STUCK_SECONDS:.0f} s"
        raise ApiError("not_ready", message, headers=RETRY_AFTER)
    if (complaint := await request[SERVED].canary.complaint()) is not None:
        raise ApiError("not_ready", complaint, headers=RETRY_AFTER)
    drift = request[SERVED].drift
    if drift.complaint is not None:
        raise ApiError("not_ready", drift.complaint, headers=RETRY_AFTER)
    problems = [*_problems_of_workers(request.app[WORKERS]), *request.app[BACKGROUND_JOBS].problems]
    problems += request.app[INDEX_SWAP].problems
    problems += [
        f"{name}: generation {shard.damaged_generation} is damaged, and {shard.generation} is served"
        for name, shard in served.searcher.shards.items()
        if shard.damaged_generation is not None
    ]
    if drift.problem is not None:
        problems.append(drift.problem)
    return json_answer(ReadyAnswer(problems=problems).model_dump_json()) if problems else _ok()


def _problems_of_workers(workers: Workers) -> list[str]:
    num_stuck = workers.num_running_for(STUCK_SECONDS)
    if not num_stuck:
        return []
    return [
        f"{num_stuck} of {workers.num_threads} worker threads have been in one call for {STUCK_SECONDS:.0f} s"
    ]


def _looking(served: ServedIndex) -> str:
    return f"a look at the index lasts for {served.seconds_looking:.0f} s: its file system does not answer"


def _ok() -> web.Response:
    return json_answer(StatusAnswer().model_dump_json())


ROUTES = (
    Route(
        method="GET",
        path="/livez",
        handler=get_livez,
        access="open",
        summary="Is the process alive?",
        answers={200: StatusAnswer},
        codes=frozenset({"reload_stopped", "encoder_stopped", "workers_stuck"}),
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=get_readyz,
        access="open",
        summary="Can the service answer searches?",
        answers={200: ReadyAnswer},
        codes=frozenset({"not_ready"}),
    ),
)
