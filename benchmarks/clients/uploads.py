"""Upload events for the figures that go through the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from schemas.codec import EncodedEvent, encode_event
from schemas.events import Content, UploadEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def encode_upload(content_id: str, content: Content) -> EncodedEvent:
    """Encode an upload event that occurs now."""
    now = _EPOCH + timedelta(milliseconds=int(time.time() * 1000))
    return encode_event(UploadEvent(content_id, content_id, "benchmark", now, content))


def publish_steadily(publish: Callable[[int], object], *, rate: float, seconds: float) -> int:
    """Call `publish` with 0, 1, … at evenly spaced times, or at once if late. Return the number of calls."""
    began = time.monotonic()
    num_uploads = max(round(rate * seconds), 1)
    for number in range(num_uploads):
        early_seconds = began + number / rate - time.monotonic()
        if early_seconds > 0:
            time.sleep(early_seconds)
        publish(number)
    return num_uploads
