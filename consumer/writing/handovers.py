"""From an encoded batch to contiguous deltas, and from several deltas of a partition to one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from clip_index.content import (
    FACT_NAMES,
    Change,
    ContentFacts,
    Delta,
    Embeddings,
    EncodedContent,
    PatchedContent,
    RemovedContent,
)
from clip_index.writing.buffer import num_bytes_of
from consumer.dead_letters.dead_letter import DeadLetterDelivery, SetAside
from consumer.tasks import Handover, Task, Upload
from consumer.tracing import RecordOutcome, RecordStatus, TracedOutcome
from event_log.errors import EventLogError
from schemas.events import DeleteEvent, PatchEvent


@dataclass(slots=True)
class Handled:
    """A task and what became of it: a change, a dead letter on its way, or neither.

    It is not frozen, because there is one for each record and freezing costs more than all the rest.
    """

    task: Task
    change: Change | None = None
    dead_letter: DeadLetterDelivery | None = None


_FACTS_OF_UPLOAD = ("text", "sha256", "is_truncated")
_OTHER_FACTS = ("occurred_at_ms", "patched_at_ms")
_FACTS_OF_EVENT = tuple(name for name in FACT_NAMES if name not in (*_FACTS_OF_UPLOAD, *_OTHER_FACTS))
"""The facts that an event has under the same name."""


_STATUS_OF: Mapping[type, RecordStatus] = MappingProxyType(
    {EncodedContent: "indexed", PatchedContent: "patched", RemovedContent: "removed"}
)


def status_of_change(change: Change) -> RecordStatus:
    """Return what became of the record of a change, as traces and metrics name it."""
    return _STATUS_OF[type(change)]


def _facts_of(upload: Upload) -> ContentFacts:
    facts = {name: getattr(upload.event, name) for name in _FACTS_OF_EVENT}
    facts |= {name: getattr(upload, name) for name in _FACTS_OF_UPLOAD}
    return ContentFacts(**facts, occurred_at_ms=_milliseconds(upload.event.occurred_at))


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def encoded_content(task: Task, upload: Upload, embeddings: Embeddings) -> EncodedContent:
    assert task.record is not None
    event = upload.event
    return EncodedContent(
        content_id=event.content_id,
        offset=task.record.offset,
        modality=upload.modality,
        embeddings=embeddings,
        facts=_facts_of(upload),
        version=event.version,
        thumbnail=upload.thumbnail,
        digest=upload.digest,
    )


def removed_content(task: Task, event: DeleteEvent) -> RemovedContent:
    assert task.record is not None
    return RemovedContent(event.content_id, task.record.offset, event.version)


def patched_content(task: Task, event: PatchEvent) -> PatchedContent:
    assert task.record is not None
    return PatchedContent(
        content_id=event.content_id,
        offset=task.record.offset,
        occurred_at_ms=_milliseconds(event.occurred_at),
        title=event.title,
        link=event.link,
        metadata=event.metadata,
        removed=frozenset(event.remove),
    )


def build_handovers(batch: Iterable[Handled]) -> list[Handover]:
    """One handover for each partition and assignment in the batch, in order of their first records."""
    groups: dict[tuple[int, int], list[Handled]] = {}
    for handled in batch:
        key = (handled.task.partition, handled.task.assignment_epoch)
        groups.setdefault(key, []).append(handled)
    return [_build_handover(group) for group in groups.values()]


def _build_handover(group: Sequence[Handled]) -> Handover:
    first, last = group[0].task, group[-1].task
    changes = tuple(handled.change for handled in group if handled.change is not None)
    return Handover(
        partition=first.partition,
        assignment_epoch=first.assignment_epoch,
        delta=Delta(first.from_offset, last.next_offset, changes),
        dead_letters=tuple(handled.dead_letter for handled in group if handled.dead_letter is not None),
        timestamps_ms=tuple(_timestamps_ms(group)),
        size_bytes=sum(_size_bytes(handled) for handled in group),
        letter_offsets=tuple(
            handled.task.record.offset for handled in group if handled.dead_letter and handled.task.record
        ),
        traces=tuple(_traces(group)),
    )


def _traces(group: Iterable[Handled]) -> Iterable[TracedOutcome]:
    for handled in group:
        trace = handled.task.trace
        if trace is not None:
            yield TracedOutcome(trace, _traced_outcome(handled))


def _traced_outcome(handled: Handled) -> RecordOutcome:
    if isinstance(handled.task.outcome, SetAside):
        return RecordOutcome("dead_letter", handled.task.outcome.reason)
    if handled.change is None:
        return RecordOutcome("passed_over")
    return RecordOutcome(status_of_change(handled.change))


def _timestamps_ms(group: Iterable[Handled]) -> Iterable[int]:
    """The times of the records that have one: Kafka writes -1 for none, and producers any number."""
    records = (handled.task.record for handled in group)
    return (record.timestamp_ms for record in records if record is not None and record.timestamp_ms > 0)


def _size_bytes(handled: Handled) -> int:
    """What it holds in memory. A dead letter holds its whole record until it is delivered."""
    return num_bytes_of(handled.change) + (handled.task.held_bytes if handled.dead_letter else 0)


def delivered_handovers(waiting: Iterable[Handover], now: float) -> list[Handover]:
    """The first handovers whose dead letters are delivered, as far as each begins where the last one ends.

    Raises what the first handover's dead letters raise. Behind others, it is raised at a later call,
    because those before it can be added.
    """
    delivered: list[Handover] = []
    for handover in waiting:
        is_next = not delivered or handover.delta.from_offset == delivered[-1].delta.next_offset
        try:
            is_ready = is_next and _is_delivered(handover, now)
        except EventLogError:
            if not delivered:
                raise
            break
        if not is_ready:
            break
        delivered.append(handover)
    return delivered


def _is_delivered(handover: Handover, now: float) -> bool:
    """Whether all its dead letters are delivered. Each is asked, because that is what tries it again."""
    answers = [letter.is_delivered(now) for letter in handover.dead_letters]
    return all(answers)


def delta_before_letters(handover: Handover, now: float) -> Delta:
    """The part of a handover before its first dead letter that is not delivered; it may be empty."""
    end = handover.delta.next_offset
    for letter, offset in zip(handover.dead_letters, handover.letter_offsets, strict=False):
        try:
            is_delivered = letter.is_delivered(now)
        except EventLogError:
            is_delivered = False
        if not is_delivered:
            end = offset
            break
    start = handover.delta.from_offset
    changes = tuple(change for change in handover.delta.changes if change.offset < end)
    return Delta(start, max(start, end), changes)


def has_patches(handover: Handover) -> bool:
    return any(isinstance(change, PatchedContent) for change in handover.delta.changes)


def joined_delta(handovers: Sequence[Handover]) -> Delta:
    """Join contiguous handovers of a partition into one delta."""
    changes = tuple(change for handover in handovers for change in handover.delta.changes)
    return Delta(handovers[0].delta.from_offset, handovers[-1].delta.next_offset, changes)
