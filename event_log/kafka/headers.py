"""Reads the headers of a message, although confluent_kafka fails on some of them."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

import structlog

from event_log.records import Headers

_checked_headers = methodcaller("headers")
"""`Message.headers()`, called so that its hidden error is raised here.

If a header's name is not UTF-8, `Message.headers()` returns normally but leaves an exception set (a bug
of confluent_kafka). Python's own call path does not notice that, and an unrelated line fails later.
`operator.methodcaller` calls from C, where the check is made: it raises `SystemError` at once.
"""


class HeaderReader:
    """Reads headers, and logs how many records had unreadable ones."""

    def __init__(self) -> None:
        self._log = structlog.get_logger(__name__)
        self._num_unreadable = 0

    def read(self, message: Any) -> Headers:
        """Return the record's headers, or none at all if the name of one is not UTF-8.

        Kafka accepts any bytes as a name, but confluent_kafka fails on them. Without this, one such record
        would stop the reader for ever.
        """
        try:
            return tuple(_checked_headers(message) or ())
        except (SystemError, UnicodeDecodeError):
            self._log_unreadable(message)
            return ()

    def _log_unreadable(self, message: Any) -> None:
        """Log the first, second, fourth, eighth … such record, so that many of them do not flood the log."""
        self._num_unreadable += 1
        if self._num_unreadable.bit_count() == 1:
            position = f"{message.topic()}-{message.partition()}@{message.offset()}"
            self._log.warning("dropped unreadable headers", record=position, count=self._num_unreadable)
