"""What a call may raise.

CliptideError
├── Unreachable     no answer: the connection failed or timed out
├── Refused         the service answered an error; `code` is stable, so a program may switch on it
│   └── Busy        429 or 503, and the client's patience is used up
├── NotInTime       what was written is not searchable yet; it is not lost, so wait again
└── NotIndexed      an upload is covered by the index, but its content is not there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class CliptideError(Exception):
    """Any error of this client."""


class Unreachable(CliptideError):
    """The service gave no answer."""


class Refused(CliptideError):
    """The service answered an error."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(error.get("code", "unknown"))
        self.message = str(error.get("message", ""))
        self.request_id = str(error.get("request_id", ""))
        self.details: Sequence[Mapping[str, Any]] = error.get("details") or []
        super().__init__(f"{status} {self.code}: {self.message}")


class Busy(Refused):
    """The service took no more requests for as long as the client waited."""


class NotInTime(CliptideError):
    """The index does not cover the event yet."""


class NotIndexed(CliptideError):
    """The event became a dead letter, or the content was deleted right after."""
