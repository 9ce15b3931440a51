"""What became of a published event in the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

from event_log.records import Delivery
from query_api.errors import ApiError, ErrorDetail, NoIndex, NotYetCovered
from query_api.serving.coverage import covered_searcher
from query_api.serving.engine import Snapshot
from query_api.serving.request_slots import CallerSlots
from query_api.serving.served_index import ServedIndex
from schemas.events import DeleteEvent, Event, PatchEvent

Fate: TypeAlias = Literal["applied", "superseded", "set_aside", "unknown_content"]

MESSAGES: Mapping[Fate, str] = MappingProxyType(
    {
        "superseded": "a later event or a higher version of this content has replaced this event",
        "set_aside": "the content is not in the index: its event became a dead letter, "
        "or it was deleted right after",
        "unknown_content": "there is no live content with this id, so the patch changed nothing",
    }
)


async def searcher_covering(
    delivery: Delivery, timeout_seconds: float, *, served: ServedIndex, slots: CallerSlots
) -> Snapshot:
    """Wait for a searcher that covers a published event; `ApiError` (not_searchable_in_time)."""
    min_offsets = {shard_of(delivery): delivery.next_offset}
    try:
        return await covered_searcher(served, slots, min_offsets, timeout_seconds)
    except (NoIndex, NotYetCovered) as error:
        raise _not_in_time(delivery, error.details) from error
    except ApiError as error:  # no such shard: the index is of another topic, or has fewer partitions
        raise _not_in_time(delivery, ()) from error


def fate_of(searcher: Snapshot, event: Event, delivery: Delivery) -> Fate:
    """Say what became of an event that the searcher covers. Blocking.

    `set_aside` means that the content is not in the index and that nothing in the index says
    why. Either the event became a dead letter, or it was an upload without a version that was
    deleted right after. `unknown_content` means that a patch found no content, or that the content was
    deleted right after.
    """
    location = searcher.find(event.content_id)
    if location is None and isinstance(event, PatchEvent):
        return "unknown_content"
    if location is None and isinstance(event, DeleteEvent):
        return "applied"
    if location is not None:
        [stored] = searcher.read_many([location], ())
        offset = stored.offset
        if (location.shard, offset) == (shard_of(delivery), delivery.offset):
            return "applied"
        if location.shard == shard_of(delivery) and offset > delivery.offset:
            return "superseded"
    floor = searcher.floor(event.content_id)
    is_below = event.version is not None and floor is not None and event.version <= floor
    return "superseded" if is_below else "set_aside"


def shard_of(delivery: Delivery) -> str:
    return f"{delivery.topic}-{delivery.partition}"


def position_of(delivery: Delivery) -> ErrorDetail:
    return {"shard": shard_of(delivery), "offset": delivery.offset, "next_offset": delivery.next_offset}


def _not_in_time(delivery: Delivery, missing: Sequence[ErrorDetail]) -> ApiError:
    message = "published, but not searchable in time; it is not lost: ask again with min_offsets"
    detail = position_of(delivery)
    for shard in missing:
        detail = {**detail, "required_next_offset": delivery.next_offset, "next_offset": shard["next_offset"]}
    return ApiError("not_searchable_in_time", message, details=[detail])
