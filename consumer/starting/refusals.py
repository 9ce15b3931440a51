"""Why a consumer ends, as one sentence and an exit code. `consumer/__main__.py` lists the codes."""

from __future__ import annotations

from dataclasses import dataclass

from clip_index.errors import ClipIndexError, DamagedFile, DamagedIndexFile, EncoderUnavailable, Fenced
from consumer.errors import AssignmentFailed, DeadLetterFlood, FencedWhileAssigned, StartRefused
from consumer.health import Health
from event_log.errors import EventLogError
from schemas.errors import UnknownSchema
from service.environment import BadSettings

FAULT = 1
WANTS_A_PERSON = frozenset({2, 3, 4, 6})
"""The exit codes after which a restart without a change fails again (`docs/operations.md`)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the consumer cannot work, in one sentence, and the code with which it ends."""

    exit_code: int
    sentence: str

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        sentence = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, DamagedFile) and not isinstance(error, DamagedIndexFile):
            sentence += (
                "; `cliptide snapshot list` shows what is good, `cliptide snapshot repair` goes back to it"
            )
        return cls(exit_code_from(error), sentence)

    def look(self) -> Health:
        return Health([], [f"held with exit code {self.exit_code}: {self.sentence}"])


def exit_code_from(error: Exception) -> int:
    """The exit code of a failure."""
    if isinstance(error, BadSettings):
        return 2
    if isinstance(error, EncoderUnavailable):
        return 4
    if isinstance(error, (FencedWhileAssigned, Fenced)):
        return 7
    if isinstance(error, (StartRefused, UnknownSchema, ClipIndexError)):
        return 3
    if isinstance(error, (EventLogError, AssignmentFailed)):
        return 5
    return 6 if isinstance(error, DeadLetterFlood) else FAULT
