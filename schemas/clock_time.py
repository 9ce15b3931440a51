"""Converts points in time to and from the wire formats: epoch milliseconds and RFC 3339."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from schemas.errors import BadEvent
from schemas.validation import EARLIEST, END_OF_TIME

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]"
    r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def ms_from_time(time: datetime) -> int:
    """Return the milliseconds since 1970 of an aware time, rounded down."""
    return (time - _EPOCH) // _MILLISECOND


def time_from_ms(ms: int) -> datetime:
    """Return the aware UTC time. Raises `BadEvent` if no datetime can hold it."""
    try:
        return _EPOCH + ms * _MILLISECOND
    except OverflowError:
        raise BadEvent(
            "invalid_field", "occurred_at: not between 1990 and 2099; is it in milliseconds?"
        ) from None


def time_from_record_timestamp(timestamp_ms: int) -> datetime:
    """Bring Kafka's record timestamp into the range of `occurred_at`.

    It is not refused, because it may be absent (-1), or any number that a producer wrote.
    """
    latest = END_OF_TIME - _MILLISECOND
    return time_from_ms(min(max(timestamp_ms, ms_from_time(EARLIEST)), ms_from_time(latest)))


def time_from_rfc_3339(text: str) -> datetime:
    """Return the UTC time, to the millisecond, of a date-time with a time zone. Raises `BadEvent`."""
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise BadEvent("invalid_field", "occurred_at: neither RFC 3339 with time zone nor epoch milliseconds")
    date, clock, fraction, zone = match.groups()
    milliseconds = (fraction or "")[:3].ljust(3, "0")
    offset = "+00:00" if zone in "Zz" else zone
    try:
        return datetime.fromisoformat(f"{date}T{clock}.{milliseconds}{offset}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise BadEvent("invalid_field", "occurred_at: no such date or time") from None


def rfc_3339_from_time(time: datetime) -> str:
    """Write the time in UTC, to the millisecond, with `Z`."""
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
