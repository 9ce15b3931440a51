"""`/v1/indexes/{index_id}`: whether this service serves an index, or could open it beside the served one."""

from __future__ import annotations

from typing import Literal, TypeAlias

from aiohttp import web
from pydantic import Field

from query_api.contract.models import Answer
from query_api.contract.route import Route
from query_api.errors import ApiError
from query_api.http.json_answer import json_answer
from query_api.serving.workers import WORKERS
from query_api.swap.index_swap import INDEX_SWAP, IndexSwap

_MAX_CHARACTERS = 512
CandidateState: TypeAlias = Literal["served", "preparing", "failed", "possible", "impossible"]


class CandidateAnswer(Answer):
    index_id: str
    state: CandidateState = Field(
        description="`served`; `preparing`: it is being opened beside the served index; `failed`: the root "
        "names it, and it could not be opened, which is tried again; `possible`: it could be served; "
        "`impossible`: `reason` says why not."
    )
    reason: str | None = Field(default=None, description="Why the index is not served, or could not be.")


async def get_candidate(request: web.Request) -> web.Response:
    """Answer what a switch to an index would meet here. Nothing is loaded for it."""
    swap, index_id = request.app[INDEX_SWAP], request.match_info["index_id"]
    if len(index_id) > _MAX_CHARACTERS:
        raise ApiError("invalid_value", f"index_id: at most {_MAX_CHARACTERS} characters")
    answer = _known_state(swap, index_id)
    if answer is None:
        refusal = await request.app[WORKERS].run(swap.refusal, index_id)
        state: CandidateState = "possible" if refusal is None else "impossible"
        answer = CandidateAnswer(index_id=index_id, state=state, reason=refusal)
    return json_answer(answer.model_dump_json())


def _known_state(swap: IndexSwap, index_id: str) -> CandidateAnswer | None:
    if swap.served_id == index_id:
        return CandidateAnswer(index_id=index_id, state="served")
    if swap.preparing_id == index_id:
        return CandidateAnswer(index_id=index_id, state="preparing")
    if swap.failure_of(index_id) is not None:
        return CandidateAnswer(index_id=index_id, state="failed", reason="the log of the service says why")
    return None


ROUTES = (
    Route(
        method="GET",
        path="/v1/indexes/{index_id}",
        handler=get_candidate,
        access="read",
        name="check_index",
        summary="Whether the service could serve another index beside the present one.",
        answers={200: CandidateAnswer},
        codes=frozenset({"invalid_value"}),
    ),
)
