"""The headers of a dead letter: written by the consumer, read by whoever lists or republishes dead letters.

A dead letter keeps the key, the value and the headers of its record. The consumer appends its own
headers: where the record lay and what went wrong, under Kafka Connect's names (KIP-298), and then the
reason code. A producer may have sent headers of the same names, so the last header of a name counts.

If that is more than the dead-letter topic takes, the letter goes without its value; if it is still too
much, as a summary: position, reason, and the digests of what was left out. Of the record's headers a
summary keeps the trace context. It takes about a kilobyte whatever the record is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

CONNECT_PREFIX = "__connect.errors."
REASON_HEADER = "cliptide.reason"
VALUE_OMITTED_HEADER = "cliptide.value_omitted"
VALUE_DIGEST_HEADER = "cliptide.value_digest"
KEY_OMITTED_HEADER = "cliptide.key_omitted"
HEADERS_OMITTED_HEADER = "cliptide.headers_omitted"
TRACE_HEADER = "traceparent"  # W3C's: it names the span of whoever published the record
_LONGEST_TRACE = 64
_LONGEST_KEPT_KEY = 128
_LONGEST_KEPT_TEXT = 120
_FIRST_HEADER = CONNECT_PREFIX + "topic"

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Where a record lies, or lay, in a log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record was set aside, and by whom.

    `reason` is a stable code, `detail` a sentence that quotes no content.
    """

    reason: str
    detail: str
    stage: str
    exception_class: str
    connector: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the headers of a dead letter say. `origin` is None where they do not name it."""

    origin: RecordPosition | None
    reason: str
    error: str


def append_explanation(headers: Headers, *, origin: RecordPosition, failure: Failure) -> Headers:
    """Return the record's own headers, then Kafka Connect's, the topic first, then the reason code."""
    context = {
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "connector.name": failure.connector,
        "task.id": failure.worker_id,
        "stage": failure.stage.upper(),
        "class.name": "consumer",
        "exception.class.name": failure.exception_class,
        "exception.message": failure.detail,
        "exception.stacktrace": f"{failure.exception_class}: {failure.detail}",
    }
    connect = tuple((CONNECT_PREFIX + name, _written(text)) for name, text in context.items())
    return (*headers, *connect, (REASON_HEADER, failure.reason.encode()))


def append_value_omitted(headers: Headers) -> Headers:
    """Say that the value is left out because the broker takes no record of this size."""
    return (*headers, (VALUE_OMITTED_HEADER, b"too_large"))


@dataclass(frozen=True, slots=True)
class Summary:
    """The key and the headers of a letter that keeps nothing large of its record."""

    key: bytes
    headers: Headers


def summarise(
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    origin: RecordPosition,
    failure: Failure,
) -> Summary:
    """Build a letter of bounded size: position, reason, and the digests of value, key and headers.

    Of the record's own headers it keeps the trace context, so that the record's trace shows the letter.

    A record without a key is keyed by its position, because a compacted topic takes no record without one.
    """
    context = {
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "stage": failure.stage.upper(),
        "exception.class.name": failure.exception_class,
        "exception.message": failure.detail,
    }
    said = tuple(
        (CONNECT_PREFIX + name, _written(text) if name == "topic" else _shortened(text))
        for name, text in context.items()
    )
    omitted: list[tuple[str, bytes]] = [(VALUE_OMITTED_HEADER, b"too_large")]
    if value is not None:
        omitted.append((VALUE_DIGEST_HEADER, _size_and_digest(value)))
    if key is not None and len(key) > _LONGEST_KEPT_KEY:
        omitted.append((KEY_OMITTED_HEADER, _size_and_digest(key)))
        key = None
    if headers:
        joined = b"".join(name.encode() + b"\0" + (text or b"") + b"\0" for name, text in headers)
        omitted.append((HEADERS_OMITTED_HEADER, b"%d headers, %s" % (len(headers), _size_and_digest(joined))))
    kept = tuple(
        header for header in headers if header[0] == TRACE_HEADER and len(header[1] or b"") <= _LONGEST_TRACE
    )[-1:]
    return Summary(
        key or str(origin).encode(), (*kept, *said, (REASON_HEADER, failure.reason.encode()), *omitted)
    )


def _written(text: str) -> bytes:
    """Write any text. A letter that cannot be written would stop more than its record."""
    return text.encode(errors="backslashreplace")


def _shortened(text: str) -> bytes:
    encoded = _written(text)
    if len(encoded) <= _LONGEST_KEPT_TEXT:
        return encoded
    return encoded[:_LONGEST_KEPT_TEXT].decode(errors="ignore").encode() + "…".encode()


def _size_and_digest(data: bytes) -> bytes:
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}".encode()


def read_explanation(headers: Headers) -> Explanation:
    """Read what the headers say. Anybody may have written them, so any bytes are read."""
    last = {name: (value or b"").decode(errors="replace") for name, value in headers}
    return Explanation(
        origin=_origin(last),
        reason=last.get(REASON_HEADER, "unknown"),
        error=last.get(CONNECT_PREFIX + "exception.message", ""),
    )


def is_value_omitted(headers: Headers) -> bool:
    """Whether the dead letter went without its record's value."""
    return any(name == VALUE_OMITTED_HEADER for name, _ in headers)


def headers_of_record(headers: Headers) -> Headers:
    """Return the headers that the record had before it became a dead letter.

    The consumer's headers begin with the topic, so everything before the last topic header is the
    record's own, forged headers of the same names included. Raises ValueError without a topic header.
    """
    names = [name for name, _ in headers]
    return headers[: len(names) - 1 - names[::-1].index(_FIRST_HEADER)]


def _origin(headers: Mapping[str, str]) -> RecordPosition | None:
    try:
        return RecordPosition(
            headers[_FIRST_HEADER],
            int(headers[CONNECT_PREFIX + "partition"]),
            int(headers[CONNECT_PREFIX + "offset"]),
        )
    except (KeyError, ValueError):
        return None
