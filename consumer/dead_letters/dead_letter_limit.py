"""When dead letters are a flood. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from consumer.errors import DeadLetterFlood


@dataclass(frozen=True, slots=True)
class FloodThreshold:
    """A flood: at least `min_dead_letters` and more than `max_share` among the latest `window` records."""

    max_share: float = 0.5
    min_dead_letters: int = 100
    window: int = 1000


class DeadLetterLimit:
    """Watches the latest records. A window counts records, not seconds: a slow topic floods too."""

    def __init__(self, threshold: FloodThreshold) -> None:
        self._threshold = threshold
        self._latest: deque[bool] = deque(maxlen=threshold.window)
        self._num_dead_letters = 0

    def passed(self) -> None:
        """A record was handled."""
        self._remember(False)

    def set_aside(self, reason: str) -> None:
        """A record is to be a dead letter; raises `DeadLetterFlood` before it becomes one."""
        self._remember(True)
        if self._is_flood():
            raise DeadLetterFlood(self._num_dead_letters, len(self._latest), reason)

    def _remember(self, is_dead_letter: bool) -> None:
        if len(self._latest) == self._latest.maxlen:
            self._num_dead_letters -= self._latest[0]
        self._latest.append(is_dead_letter)
        self._num_dead_letters += is_dead_letter

    def _is_flood(self) -> bool:
        enough = self._num_dead_letters >= self._threshold.min_dead_letters
        return enough and self._num_dead_letters > self._threshold.max_share * len(self._latest)
