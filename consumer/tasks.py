"""The values that pass from thread to thread."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from clip_index.content import Delta, Embeddings
from clip_index.encoder.protocol import Prepared
from consumer.dead_letters.dead_letter import DeadLetterDelivery, SetAside
from event_log.records import Record
from schemas.events import DeleteEvent, Modality, UploadEvent

TASK_BYTES = 500
"""Roughly what a task and its record take in memory beside the bytes of the record."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What the index keeps of an upload event, apart from its embeddings."""

    event: UploadEvent
    modality: Modality
    text: str | None
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class Encodable:
    """Ready for the encoder."""

    upload: Upload
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class AlreadyEncoded:
    """Encoded alone, in quarantine."""

    upload: Upload
    embeddings: Embeddings


@dataclass(frozen=True, slots=True)
class Removal:
    """A delete event: nothing to encode."""

    event: DeleteEvent


@dataclass(frozen=True, slots=True)
class NothingThere:
    """Offsets without a record: transaction markers, compacted gaps."""


Outcome: TypeAlias = Encodable | AlreadyEncoded | Removal | SetAside | NothingThere


@dataclass(slots=True, eq=False)
class Task:
    """One record and the half-open range of offsets that passing it covers.

    `from_offset` is the previous task's `next_offset`, so that the tasks of a
    partition cover the log without a hole.

    It settles once: a preparation thread sets `outcome` or `error`, and touches the task
    no more. Until then it is nobody else's business, so a task needs no lock and no
    future of its own; those were a tenth of what a small record cost.
    """

    partition: int
    assignment_epoch: int
    from_offset: int
    next_offset: int
    record: Record | None
    arrival: int
    size_bytes: int
    outcome: Outcome | None = None
    error: Exception | None = None
    is_cancelled: bool = False
    fetching: Future[bytes] | None = None

    @property
    def held_bytes(self) -> int:
        return TASK_BYTES + self.size_bytes

    @property
    def is_ready(self) -> bool:
        return self.outcome is not None or self.error is not None

    def settled(self) -> Outcome:
        """The outcome of a ready task; raises what its preparation raised."""
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

    def fetch(self, fetching: Future[bytes]) -> None:
        """Remember a fetch, which cancelling the task cancels."""
        self.fetching = fetching
        if self.is_cancelled:
            fetching.cancel()

    def take_fetched(self) -> bytes:
        """The fetched bytes, of which the task and the fetch let go; raises what the fetch raised."""
        assert self.fetching is not None
        fetched, self.fetching = self.fetching, None
        try:
            return fetched.result(timeout=0)
        finally:
            fetched.cancel()

    def cancel(self) -> None:
        """Nobody waits for the outcome any more: what has not begun does not begin, a fetch ends."""
        self.is_cancelled = True
        fetching = self.fetching
        if fetching is not None:
            fetching.cancel()


@dataclass(frozen=True, slots=True)
class AssignedPartition:
    """A partition that the group has given to this process. Its log begins at `first_offset`."""

    partition: int
    assignment_epoch: int
    first_offset: int


@dataclass(frozen=True, slots=True)
class Handover:
    """A delta on its way to its shard's writer.

    The delta may be added only when every one of `dead_letters` is delivered.
    `timestamps_ms` are those of its records, in offset order. `size_bytes` is roughly
    what it holds in memory, the records of its dead letters included.
    """

    partition: int
    assignment_epoch: int
    delta: Delta
    dead_letters: tuple[DeadLetterDelivery, ...] = ()
    timestamps_ms: tuple[int, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """At `at_seconds` (wall clock, UTC) the log of the partition ended at `next_offset`."""

    partition: int
    assignment_epoch: int
    next_offset: int
    at_seconds: float
