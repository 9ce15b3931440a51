"""What both clients share: the connection's settings, and the way from a call to httpx and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from cliptide.client.flows import NO_ANSWER, NO_CONNECTION, Call, Reply


@dataclass(frozen=True, slots=True)
class Connection:
    """The service's address, and how long to wait: for one answer, and altogether while it is busy."""

    address: str
    api_key: str | None = None
    timeout_seconds: float = 30.0
    patience_seconds: float = 30.0

    def settings(self) -> dict[str, Any]:
        """Return the arguments of httpx's clients."""
        headers = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"base_url": self.address, "headers": headers, "timeout": self.timeout_seconds}

    def arguments_of(self, call: Call) -> Mapping[str, Any]:
        """Return the arguments of httpx's `request`."""
        timeout = self.timeout_seconds + call.wait_seconds
        body = {} if call.json is None else {"json": call.json}
        return {"method": call.method, "url": call.path, "params": call.params, "timeout": timeout, **body}


def reply_of(response: httpx.Response) -> Reply:
    try:
        body = response.json()
    except ValueError:  # not the service: something between
        body = None
    return Reply(response.status_code, body, response.headers.get("Retry-After"))


def reply_without_answer(error: httpx.HTTPError, connection: Connection) -> Reply:
    """Only a connection that was never made is tried again, because a request may have been carried out."""
    problem = f"{connection.address}: {error or type(error).__name__}"
    never_connected = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    return Reply(NO_CONNECTION if never_connected else NO_ANSWER, problem=problem)
