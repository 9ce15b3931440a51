"""Searches over one HTTP connection, which stays open."""

from __future__ import annotations

import http.client


class Refused(Exception):
    """The service answered with another status than 200."""

    def __init__(self, status: int, answer: bytes) -> None:
        super().__init__(f"the service answered {status}: {answer[:200]!r}")
        self.status = status


class SearchConnection:
    """A connection to the query service. Only one thread may use it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60.0)

    def search(self, body: str) -> bytes:
        """Return the body of the answer, or raise `Refused`."""
        self._connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise Refused(response.status, answer)
        return answer

    def close(self) -> None:
        self._connection.close()
