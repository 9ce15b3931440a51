"""The headers of a dead letter: written by the consumer, read by whoever lists or republishes dead letters.

A dead letter keeps the key, the value and the headers of its record. The consumer appends its own
headers: where the record lay and what went wrong, under Kafka Connect's names (KIP-298), and then the
reason code. A producer may have sent headers of the same names, so the last header of a name counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

CONNECT_PREFIX = "__connect.errors."
REASON_HEADER = "cliptide.reason"
VALUE_OMITTED_HEADER = "cliptide.value_omitted"
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
    connect = tuple((CONNECT_PREFIX + name, text.encode()) for name, text in context.items())
    return (*headers, *connect, (REASON_HEADER, failure.reason.encode()))


def append_value_omitted(headers: Headers) -> Headers:
    """Say that the value is left out because the broker takes no record of this size."""
    return (*headers, (VALUE_OMITTED_HEADER, b"too_large"))


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
