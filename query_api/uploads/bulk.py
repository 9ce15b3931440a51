"""Many events at once: what a filter finds, what became of each event. Blocking, or without a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from clip_index.content import MODALITIES
from clip_index.row_filter import RowFilter
from event_log.records import Delivery
from query_api.errors import ApiError
from query_api.serving.engine import Snapshot
from query_api.uploads.bulk_models import OutcomeError, UploadOutcome
from query_api.uploads.fate import MESSAGES, fate_of, position_of, shard_of
from schemas.events import DeleteEvent, Event

ACCEPTED, SEARCHABLE = 202, 200


@dataclass(frozen=True, slots=True)
class Written:
    """One event of a batch: where it lies in the log, or why it is not there."""

    event: Event | None
    delivery: Delivery | None = None
    error: ApiError | None = None
    content_id: str | None = None

    @property
    def known_id(self) -> str | None:
        return self.content_id if self.event is None else self.event.content_id


@dataclass(frozen=True, slots=True)
class Found:
    """The contents that pass a filter. `deletes` are empty if they are too many."""

    num_contents: int
    deletes: Sequence[DeleteEvent]


def min_offsets_of(deliveries: Iterable[Delivery]) -> dict[str, int]:
    """Return what a snapshot must cover to show all of them."""
    offsets: dict[str, int] = {}
    for delivery in deliveries:
        shard = shard_of(delivery)
        offsets[shard] = max(delivery.next_offset, offsets.get(shard, 0))
    return offsets


def outcomes_of(written: Sequence[Written], status: int) -> list[UploadOutcome]:
    """Say what became of each event; `status` is that of events that are in the log."""
    return [_outcome(one, status) for one in written]


def _outcome(one: Written, status: int) -> UploadOutcome:
    fields: dict[str, Any] = {} if one.known_id is None else {"content_id": one.known_id}
    if one.delivery is not None:
        fields |= position_of(one.delivery)
    if one.error is None:
        return UploadOutcome(status=status, **fields)
    error = OutcomeError(code=one.error.code, message=one.error.message)
    if one.error.details:
        error = error.model_copy(update={"details": list(one.error.details)})
    return UploadOutcome(status=one.error.status, error=error, **fields)


def with_fates(searcher: Snapshot, written: Sequence[Written]) -> list[Written]:
    """Say of each event that the searcher covers whether it was applied. Blocking."""
    return [_with_fate(searcher, one, is_last) for one, is_last in _with_lasts(written)]


def _with_lasts(written: Sequence[Written]) -> Iterator[tuple[Written, bool]]:
    """Yield each event, and whether it is the last one of its content in the batch."""
    last: Mapping[str | None, int] = {one.known_id: number for number, one in enumerate(written)}
    for number, one in enumerate(written):
        yield one, last[one.known_id] == number


def _with_fate(searcher: Snapshot, one: Written, is_last: bool) -> Written:
    if one.event is None or one.delivery is None:
        return one
    fate = fate_of(searcher, one.event, one.delivery) if is_last else "superseded"
    if fate == "applied":
        return one
    return Written(one.event, one.delivery, ApiError(fate, MESSAGES[fate]))


def find_deletes(searcher: Snapshot, row_filter: RowFilter, max_contents: int) -> Found:
    """Build a delete for each content that passes, unless there are more than `max_contents`. Blocking.

    The delete of a content with a version carries that version. So it does not apply to a newer version
    that was uploaded meanwhile.
    """
    counted = searcher.count_values("modality", row_filter, max_values=len(MODALITIES))
    num_contents = sum(number for _, number in counted.values)
    if num_contents > max_contents:
        return Found(num_contents, ())
    newest = [
        content
        for modality in MODALITIES
        for content in searcher.newest(k=max_contents, modality=modality, row_filter=row_filter)
    ]
    now = datetime.now(timezone.utc)
    stored = searcher.read_many([content.location for content in newest], ())
    deletes = [DeleteEvent("", content.content_id, "", now, content.version) for content in stored]
    return Found(num_contents, deletes)
