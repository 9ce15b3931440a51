"""When dead letters are a flood. Pure.

A flood shows a cause upstream that spoils all records: undecodable bytes, a wrong schema, wrong keys.
Records whose upload cannot be indexed are no sign of it. They count as passed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from consumer.errors import DeadLetterFlood


@dataclass(frozen=True, slots=True)
class FloodThreshold:
    """It is a flood when at least `min_dead_letters`, and a share of more than `max_share`, of the latest
    `window` records are dead letters.
    """

    max_share: float = 0.5
    min_dead_letters: int = 100
    window: int = 1000


class DeadLetterLimit:
    """Watches the latest records. The window counts records, not seconds, so a slow topic floods too."""

    def __init__(self, threshold: FloodThreshold) -> None:
        self._threshold = threshold
        self._latest: deque[bool] = deque(maxlen=threshold.window)
        self._num_dead_letters = 0

    def passed(self) -> None:
        """A record was handled, and nothing is wrong with how it was published."""
        self._remember(False)

    def set_aside(self, reason: str, position: str = "") -> None:
        """Count a record before it becomes a dead letter; raises `DeadLetterFlood` if it is one too many."""
        self._remember(True)
        if self._is_flood():
            raise DeadLetterFlood(self._num_dead_letters, len(self._latest), reason, position)

    def _remember(self, is_dead_letter: bool) -> None:
        if len(self._latest) == self._latest.maxlen:
            self._num_dead_letters -= self._latest[0]
        self._latest.append(is_dead_letter)
        self._num_dead_letters += is_dead_letter

    def _is_flood(self) -> bool:
        enough = self._num_dead_letters >= self._threshold.min_dead_letters
        return enough and self._num_dead_letters > self._threshold.max_share * len(self._latest)
