"""What each method does, written once for both clients, without input or output.

A flow is a generator. It yields a `Call` and gets a `Reply`, or it yields a `Pause`. The blocking and the
asynchronous client only carry these out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from cliptide.client.errors import Busy, CliptideError, NotIndexed, NotInTime, Refused, Unreachable
from cliptide.client.values import (
    Acknowledgement,
    Answer,
    DeletedByFilter,
    Json,
    Outcome,
    Query,
    Upload,
    as_query,
    given,
)

FIRST_PAUSE_SECONDS = 0.5  # where an answer has no Retry-After
MAX_WAIT_MS = 60_000  # how long the service waits in one request
NO_CONNECTION, NO_ANSWER = 0, -1
_BUSY = (429, 503)
_WORTH_A_RETRY = (NO_CONNECTION, *_BUSY)


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `json` is its body."""

    method: str
    path: str
    json: Json | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0.0  # how much longer than usual the answer may take


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Without one: `NO_CONNECTION`, or `NO_ANSWER` if the request may have arrived."""

    status: int
    json: Any = None
    retry_after: str | None = None
    problem: str = ""


ValueT = TypeVar("ValueT")
Flow: TypeAlias = Generator["Call | Pause", Reply, ValueT]


def send(call: Call, patience_seconds: float) -> Flow[Json]:
    """Send a call until it is answered; wait as long as the service says where it is busy or away."""
    waited, attempt = 0.0, 0
    while True:
        reply = yield call
        if reply.status in range(200, 300):
            if not isinstance(reply.json, dict):
                raise Unreachable("the answer is not the service's: it is not a JSON object")
            return reply.json
        pause = _pause_before_retry(reply, attempt)
        if pause is None or waited + pause > patience_seconds:
            raise _error_of(reply)
        yield Pause(pause)
        waited, attempt = waited + pause, attempt + 1


def search(query: Query | str, options: Mapping[str, Any], patience_seconds: float) -> Flow[Answer]:
    body = {**as_query(query).as_json(), **options}
    return (yield from _answer("/v1/search", body, patience_seconds))


def next_page(cursor: str, patience_seconds: float) -> Flow[Answer]:
    return (yield from _answer("/v1/search", {"cursor": cursor}, patience_seconds))


def search_batch(
    queries: Sequence[tuple[Query | str, Mapping[str, Any]]], patience_seconds: float
) -> Flow[list[Answer]]:
    body = {"queries": [{**as_query(query).as_json(), **options} for query, options in queries]}
    answer = yield from send(Call("POST", "/v1/search/batch", body), patience_seconds)
    shared = {"snapshot": answer["snapshot"], "timings": answer["timings"]}
    return [Answer.from_json({**one, **shared}) for one in answer["answers"]]


@dataclass(frozen=True, slots=True)
class Examples:
    """What to recommend by: examples, or what an owner uploaded."""

    positive: Sequence[Query | str] = ()
    negative: Sequence[Query | str] = ()
    owner_id: str | None = None

    def as_json(self) -> Json:
        positive = [as_query(one).as_json() for one in self.positive]
        negative = [as_query(one).as_json() for one in self.negative]
        return given({"positive": positive or None, "negative": negative or None, "owner_id": self.owner_id})


def recommend(examples: Examples, options: Mapping[str, Any], patience_seconds: float) -> Flow[Answer]:
    return (yield from _answer("/v1/recommend", {**examples.as_json(), **options}, patience_seconds))


def upload(wanted: Upload, patience_seconds: float) -> Flow[Acknowledgement]:
    answer = yield from send(Call("POST", "/v1/contents", wanted.as_json()), patience_seconds)
    return _acknowledgement(answer)


def upload_batch(wanted: Sequence[Upload], patience_seconds: float) -> Flow[list[Outcome]]:
    body = {"contents": [one.as_json() for one in wanted]}
    answer = yield from send(Call("POST", "/v1/contents/batch", body), patience_seconds)
    return [_outcome(one, found) for one, found in zip(wanted, answer["outcomes"], strict=True)]


def _outcome(wanted: Upload, found: Json) -> Outcome:
    error = found.get("error")
    refused = None if error is None else Refused(found["status"], error)
    is_written = found.get("offset") is not None
    written = _acknowledgement({**found, "content_id": wanted.content_id}) if is_written else None
    return Outcome(wanted.content_id, written, refused)


def delete_by_filter(
    row_filter: Mapping[str, Any], options: Mapping[str, Any], patience_seconds: float
) -> Flow[DeletedByFilter]:
    body = {"filter": row_filter, **options}
    answer = yield from send(Call("POST", "/v1/contents/delete", body), patience_seconds)
    return DeletedByFilter(
        answer["num_found"], answer["num_deleted"], answer["content_ids"], answer["min_offsets"]
    )


def delete(content_id: str, version: int | None, patience_seconds: float) -> Flow[Acknowledgement]:
    params = {} if version is None else {"version": str(version)}
    answer = yield from send(Call("DELETE", _content_path(content_id), params=params), patience_seconds)
    return _acknowledgement(answer, is_delete=True)


def patch(content_id: str, changes: Mapping[str, Any], patience_seconds: float) -> Flow[Acknowledgement]:
    answer = yield from send(Call("PATCH", _content_path(content_id), dict(changes)), patience_seconds)
    return _acknowledgement(answer)


def get_content(content_id: str, patience_seconds: float) -> Flow[Json | None]:
    try:
        answer = yield from send(Call("GET", _content_path(content_id)), patience_seconds)
    except Refused as error:
        if error.code == "unknown_content":
            return None
        raise
    content: Json = answer["content"]
    return content


def wait_for(acknowledgement: Acknowledgement, timeout_seconds: float) -> Flow[None]:
    """Search for what is like the content, from a snapshot that covers the event, until there is one."""
    deadline = time.monotonic() + timeout_seconds
    is_there = yield from _is_there(acknowledgement, timeout_seconds)
    while is_there is None:
        if (left := deadline - time.monotonic()) <= 0:
            raise NotInTime(
                f"{acknowledgement.content_id} is not searchable after {timeout_seconds:g} s; wait again"
            )
        is_there = yield from _is_there(acknowledgement, left)
    if not is_there and not acknowledgement.is_delete:
        raise NotIndexed(
            f"{acknowledgement.content_id} is not in the index: its event became a dead letter, "
            "or the content was deleted right after"
        )


def _is_there(acknowledgement: Acknowledgement, seconds: float) -> Flow[bool | None]:
    """Say whether the index has the content; None if the index does not cover the event in time."""
    timeout_ms = min(MAX_WAIT_MS, max(0, int(seconds * 1000)))
    covering = {"min_offsets": acknowledgement.min_offsets, "timeout_ms": timeout_ms}
    body = {"content_id": acknowledgement.content_id, "k": 1, **covering}
    reply = yield Call("POST", "/v1/search", body, wait_seconds=timeout_ms / 1000)
    if reply.status == 200:
        return True
    error = _error_of(reply)
    code = error.code if isinstance(error, Refused) else ""
    if code == "unknown_content":
        return False
    pause = _pause_before_retry(reply, 0)
    if pause is None:
        raise error
    if code != "not_yet_covered":  # that one has waited already
        yield Pause(min(pause, max(0.0, seconds)))
    return None


def _answer(path: str, body: Json, patience_seconds: float) -> Flow[Answer]:
    wait_seconds = body.get("timeout_ms", 0) / 1000
    answer = yield from send(Call("POST", path, body, wait_seconds=wait_seconds), patience_seconds)
    return Answer.from_json(answer)


def _acknowledgement(answer: Json, *, is_delete: bool = False) -> Acknowledgement:
    return Acknowledgement(
        answer["content_id"], answer["shard"], answer["offset"], answer["next_offset"], is_delete
    )


def _content_path(content_id: str) -> str:
    """Return the address of a content. Raises `ValueError` for an id that would be another address."""
    if content_id in ("", ".", ".."):
        raise ValueError(f"no content has an address with the id {content_id!r}")
    return f"/v1/contents/{quote(content_id, safe='')}"


def _pause_before_retry(reply: Reply, attempt: int) -> float | None:
    """Return how long to wait before the same call again; None if that would not help."""
    if reply.status not in _WORTH_A_RETRY:
        return None
    told = _seconds_of(reply.retry_after)
    seconds = FIRST_PAUSE_SECONDS * 2**attempt if told is None else told
    return seconds * random.uniform(1.0, 1.1)  # so that clients that were refused together do not return so


def _seconds_of(retry_after: str | None) -> float | None:
    """Read a Retry-After header: a number of seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def _error_of(reply: Reply) -> CliptideError:
    if reply.status in (NO_CONNECTION, NO_ANSWER):
        return Unreachable(reply.problem)
    found = reply.json.get("error") if isinstance(reply.json, dict) else None
    error = found if isinstance(found, dict) else {"message": "the answer is not an error of the service"}
    return Busy(reply.status, error) if reply.status in _BUSY else Refused(reply.status, error)
