"""Whether the consumer is to stop, and why."""

from __future__ import annotations

import threading

from clip_index.errors import ClipIndexError, DeltaMismatch
from consumer.errors import ConsumerError, ConsumerFault
from event_log.errors import EventLogError
from schemas.errors import UnknownSchema

_EXPECTED = (ConsumerError, EventLogError, ClipIndexError, UnknownSchema)


class PipelineState:
    """Whether the pipeline is to stop, and the error if there is one. All threads share it."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    def is_stopping(self) -> bool:
        return self._stop.is_set()

    def has_faulted(self) -> bool:
        """Whether a fault has ended the pipeline: an error that does not say how to go on.

        `ConsumerFault` and `DeltaMismatch` are faults although they belong to the error trees.
        """
        if isinstance(self._failure, (ConsumerFault, DeltaMismatch)):
            return True
        return self._failure is not None and not isinstance(self._failure, _EXPECTED)

    def stop(self) -> None:
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Stop because of an error. Only the first one is kept, because later ones may follow from it."""
        with self._lock:
            if self._failure is None:
                self._failure = error
        self._stop.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until the pipeline is to stop; False after the timeout."""
        return self._stop.wait(timeout_seconds)
