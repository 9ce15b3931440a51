"""Calls the query service: a small blocking client on the standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]


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

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._request("/readyz"), timeout=self.timeout_seconds):
                return True
        except (OSError, HTTPException):
            return False

    def _call(self, path: str, body: Json | None = None) -> Json:
        try:
            with urllib.request.urlopen(self._request(path, body), timeout=self.timeout_seconds) as response:
                return _json_object(response.read())
        except urllib.error.HTTPError as error:
            with error:
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
