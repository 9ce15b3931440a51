"""Calls the query service: a small blocking client on the standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import quote

Json = dict[str, Any]

MAX_IDS_OF_A_CALL, MAX_ID_CHARACTERS_OF_A_CALL = 256, 60_000  # a filter of the service takes no more


class QueryServiceError(Exception):
    """The query service gave no usable answer."""


class QueryServiceAway(QueryServiceError):
    """The service is not reachable, starting, or busy; a later call may succeed."""


class QueryRefused(QueryServiceError):
    """The service refused the call; `status` and the stable `code` say why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, because the API key and the query would go to whatever host the answer names."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None  # the redirect is raised as an HTTPError then


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True, slots=True)
class IndexState:
    """What is searchable at this moment: each shard's next offset, and the number of contents.

    `num_owned` counts the shards that a consumer has taken over at least once.
    """

    next_offsets: Mapping[str, int]
    num_contents: int
    num_owned: int = 0


@dataclass(frozen=True, slots=True)
class QueryClient:
    """Calls the query service at `url`. Every method may raise `QueryServiceError`. Thread-safe."""

    url: str
    api_key: str | None = None
    timeout_seconds: float = 30.0

    def search(self, request: Json) -> Json:
        return self._call("/v1/search", request)

    def index(self) -> IndexState:
        shards: Mapping[str, Json] = self._call("/v1/index")["shards"]
        return IndexState(
            next_offsets={name: int(shard["next_offset"]) for name, shard in shards.items()},
            num_contents=sum(sum(shard["num_contents"].values()) for shard in shards.values()),
            num_owned=sum(shard["generation"] > 0 for shard in shards.values()),
        )

    def candidate(self, index_id: str) -> tuple[str, str | None]:
        """Return whether the service serves an index, or could (`state` of `/v1/indexes`), and why not."""
        answer = self._call(f"/v1/indexes/{quote(index_id, safe='')}")
        return str(answer["state"]), answer.get("reason")

    def query_sample(self) -> Json:
        """Return the sample of live queries that the service keeps; the key must be an admin key."""
        return self._call("/v1/query_sample")

    def content(self, content_id: str) -> Json | None:
        """Return the content, or None if the service has no live content of this id."""
        try:
            answer = self._call(f"/v1/contents/{quote(content_id, safe='')}")
        except QueryRefused as error:
            if error.code == "unknown_content":
                return None
            raise
        content: Json = answer["content"]
        return content

    def known_ids(self, content_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that have a live content. One call asks for some hundred ids."""
        return set(self.known_contents(content_ids))

    def known_contents(self, content_ids: Sequence[str], include: Sequence[str] = ()) -> dict[str, Json]:
        """Return the live contents of these ids, with the fields in `include`."""
        parts = _parts_of(content_ids)
        return {hit["content_id"]: hit for part in parts for hit in self._known_of(part, include)}

    def is_ready(self) -> bool:
        try:
            with _OPENER.open(self._request("/readyz"), timeout=self.timeout_seconds):
                return True
        except (OSError, HTTPException, QueryServiceError):
            return False

    def _known_of(self, content_ids: Sequence[str], include: Sequence[str]) -> Iterator[Json]:
        condition = {"field": "content_id", "any_of": list(content_ids)}
        request: Json = {"k": MAX_IDS_OF_A_CALL, "filter": {"must": [condition]}}
        answer = self._call("/v1/browse", request | ({"include": list(include)} if include else {}))
        for newest in answer["results"].values():
            yield from newest["hits"]

    def _call(self, path: str, body: Json | None = None) -> Json:
        try:
            with _OPENER.open(self._request(path, body), timeout=self.timeout_seconds) as response:
                return _json_object(response.read())
        except urllib.error.HTTPError as error:
            with error:
                if 300 <= error.code < 400:
                    raise _redirected(self.url, error.headers.get("Location") or "nowhere") from error
                raise _refusal(error.code, error.read()) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise QueryServiceAway(f"no answer from the query service at {self.url} ({reason})") from error
        except ValueError:  # not quoted, because its text could hold the API key
            message = "is not an http:// or https:// address, or no header can carry the API key"
            raise QueryServiceError(f"{self.url} {message}") from None

    def _request(self, path: str, body: Json | None = None) -> urllib.request.Request:
        headers = {"Accept": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        return urllib.request.Request(self.url.rstrip("/") + path, data=data, headers=headers)


def _redirected(url: str, location: str) -> QueryServiceError:
    address = location.partition("?")[0]
    return QueryServiceError(
        f"{url} answers with a redirect to {address}, which is not followed, because the API key and the "
        "query would be sent there. If that is the query service, set --query-url to it"
    )


def _parts_of(content_ids: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    num_characters = 0
    for content_id in content_ids:
        num_characters += len(content_id)
        if part and (len(part) == MAX_IDS_OF_A_CALL or num_characters > MAX_ID_CHARACTERS_OF_A_CALL):
            yield part
            part, num_characters = [], len(content_id)
        part.append(content_id)
    if part:
        yield part


def _json_object(body: bytes) -> Json:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise QueryServiceError("the answer is not JSON: is this the query service's address?") from error
    if not isinstance(answer, dict):
        raise QueryServiceError("the answer is not a JSON object: is this the query service's address?")
    return answer


def _refusal(status: int, body: bytes) -> QueryServiceError:
    try:
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "unknown", body.decode(errors="replace")[:200]
    if status in (429, 503):
        return QueryServiceAway(f"the query service is busy or not ready ({code}: {message})")
    return QueryRefused(status, code, message)
