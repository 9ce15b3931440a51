"""The values that pass from thread to thread, on the way of a record into its shard."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

from clip_index.content import Delta, Embeddings
from clip_index.encoder.protocol import Prepared
from consumer.dead_letters.dead_letter import DeadLetterDelivery, SetAside
from consumer.tracing import RecordTrace, TracedOutcome
from event_log.records import Record
from schemas.events import DeleteEvent, Modality, PatchEvent, UploadEvent

TASK_BYTES = 500
"""About what a task and its record take in memory, in addition to the record's key, value and headers."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What the index keeps of an upload event, in addition to its embeddings.

    `digest` names the bytes and what is computed from them. `sha256` is the digest of the bytes that a
    reference gave. `is_truncated` says that only the beginning of the text is encoded.
    """

    event: UploadEvent
    modality: Modality
    text: str | None
    digest: bytes
    thumbnail: bytes | None = None
    sha256: str | None = None
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Encodable:
    """An upload that is prepared and can be encoded in a batch."""

    upload: Upload
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class AlreadyEncoded:
    """An upload whose embeddings are known: from equal bytes, or because it was encoded in quarantine."""

    upload: Upload
    embeddings: Embeddings


@dataclass(frozen=True, slots=True)
class Removal:
    """A delete event, for which nothing is encoded."""

    event: DeleteEvent


@dataclass(frozen=True, slots=True)
class Patching:
    """A patch event, for which nothing is encoded."""

    event: PatchEvent


@dataclass(frozen=True, slots=True)
class NothingThere:
    """Offsets without an event: transaction markers, compacted gaps, and what a mapping passes over."""


Outcome: TypeAlias = Encodable | AlreadyEncoded | Removal | Patching | SetAside | NothingThere


@dataclass(slots=True, eq=False)
class Task:
    """One record, and the half-open range of offsets that is covered when the record is handled.

    `from_offset` is the previous task's `next_offset`. So the tasks of a partition cover its log
    without a gap.

    A task settles once: a preparation thread sets `outcome` or `error` and then leaves the task
    alone. Before that no other thread reads the task. Therefore it needs no lock and no future of
    its own; these would cost a tenth of the handling of a small record.

    A task that cannot be handled by this process does not settle. `waits_because` says why. It holds
    back its partition until another process gets it.

    Only a sampled record has a `trace`.
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
    waits_because: str | None = None
    trace: RecordTrace | None = None

    @property
    def position(self) -> str:
        """Where the record lies, for people."""
        if self.record is None:
            return f"partition {self.partition}, before offset {self.next_offset}"
        return f"{self.record.topic}-{self.partition}@{self.record.offset}"

    @property
    def held_bytes(self) -> int:
        return TASK_BYTES + self.size_bytes

    @property
    def is_ready(self) -> bool:
        return self.outcome is not None or self.error is not None

    def settled(self) -> Outcome:
        """Return the outcome of a ready task, or raise what its preparation raised."""
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

    def fetch(self, fetching: Future[bytes]) -> None:
        """Remember the fetch of the task's reference, so that `cancel` can end it."""
        self.fetching = fetching
        if self.is_cancelled:
            fetching.cancel()

    def take_fetched(self) -> bytes:
        """Return the fetched bytes, or raise what the fetch raised.

        Neither the task nor the fetch keeps the bytes, so that they can be freed.
        """
        assert self.fetching is not None
        fetched, self.fetching = self.fetching, None
        try:
            return fetched.result(timeout=0)
        finally:
            fetched.cancel()

    def cancel(self) -> None:
        """The outcome is no longer wanted: steps that have not begun are skipped, and a fetch ends."""
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
    """A delta on its way from the encoder thread to its shard's writer.

    The delta may be added only when all `dead_letters` are delivered. `letter_offsets` are the offsets
    of their records. `timestamps_ms` are the timestamps of those of its records that have one, in offset
    order. `size_bytes` is about what the handover takes in memory, including the records of its dead
    letters. `traces` are those of its sampled records.
    """

    partition: int
    assignment_epoch: int
    delta: Delta
    dead_letters: tuple[DeadLetterDelivery, ...] = ()
    timestamps_ms: tuple[int, ...] = ()
    size_bytes: int = 0
    letter_offsets: tuple[int, ...] = ()
    traces: tuple[TracedOutcome, ...] = ()


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """At `at_seconds` (wall clock, seconds since 1970) the partition's log ended at `next_offset`."""

    partition: int
    assignment_epoch: int
    next_offset: int
    at_seconds: float
