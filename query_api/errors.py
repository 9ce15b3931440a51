"""The errors that a request can be answered with.

An error answer is `{"error": {"code", "message", "request_id", "details"?}}`. Clients may switch
on the code, which is stable. The message is for people and may change.

ApiError
├── ContentRefused     the text or image of the request can never be encoded
├── EventRefused       the event breaks a rule of the schema
├── NoIndex            there is no index to search yet
└── NotYetCovered      the index does not cover the demanded offsets yet
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from typing_extensions import TypedDict

from clip_index.errors import BadContent

STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "bad_request": 400,
        "bad_body": 400,  # it does not decode, or the connection closed before its end
        "bad_json": 400,
        "bad_multipart": 400,
        "key_required": 401,
        "unknown_key": 401,
        "forbidden": 403,
        "unknown_host": 403,
        "publishing_off": 403,
        "unknown_route": 404,
        "no_thumbnail": 404,
        "unknown_content": 404,
        "bad_cursor": 400,
        "generation_gone": 410,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "superseded": 409,
        "body_too_large": 413,
        "content_too_large": 413,
        "unsupported_media_type": 415,
        "unsupported_image": 415,
        "not_an_image": 415,
        "bad_base64": 422,
        "invalid_value": 422,
        "missing_field": 422,
        "not_unicode": 422,
        "set_aside": 422,
        "percentiles_off": 422,
        "not_finite": 422,
        "one_query_required": 422,
        "out_of_range": 422,
        "too_many_contents": 422,
        "too_many_hits": 422,
        "unknown_field": 422,
        "unknown_partition": 422,
        "wrong_dimension": 422,
        "zero_vector": 422,
        "too_many_requests": 429,
        "headers_too_large": 431,
        "internal": 500,
        "encoder_stopped": 503,
        "no_index": 503,
        "log_unavailable": 503,
        "not_ready": 503,
        "not_yet_covered": 503,
        "overloaded": 503,
        "reload_stopped": 503,
        "not_answered_in_time": 503,
        "workers_stuck": 503,
        "not_searchable_in_time": 504,
    }
)


class ErrorDetail(TypedDict, total=False):
    """One thing that is wrong with a request, or one shard that does not cover enough yet."""

    field: str
    code: str
    message: str
    shard: str
    required_next_offset: int
    offset: int
    next_offset: int


class ApiError(Exception):
    """An error answer. `code` is a key of `STATUSES`."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Sequence[ErrorDetail] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers

    @property
    def status(self) -> int:
        return STATUSES[self.code]


class ContentRefused(ApiError):
    """The text or image of a request can never be encoded. The code is the reason of `BadContent`.

    The status is 415 if the bytes are not a supported image, otherwise 422.
    """

    def __init__(self, error: BadContent) -> None:
        super().__init__(error.reason, error.detail)

    @property
    def status(self) -> int:
        return STATUSES.get(self.code, 422)


class EventRefused(ApiError):
    """The consumer would make a dead letter of this event. The code is the reason of `BadEvent`."""

    @property
    def status(self) -> int:
        return 422


class NoIndex(ApiError):
    """There is no index yet: no consumer has created it."""

    def __init__(self) -> None:
        super().__init__("no_index", "there is no index to search yet", headers={"Retry-After": "1"})


class NotYetCovered(ApiError):
    """The searcher does not cover the offsets that the request demands. `details` name the shards."""

    def __init__(self, missing: Sequence[ErrorDetail]) -> None:
        shards = ", ".join(detail["shard"] for detail in missing)
        message = f"not searchable up to the demanded offsets yet: {shards}"
        super().__init__("not_yet_covered", message, details=missing, headers={"Retry-After": "1"})
