"""Which event wins: the state of one content id, folded over its events in offset order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdState:
    """`floor` is the greatest version applied so far, None while no event had one."""

    floor: int | None
    is_live: bool


UNSEEN = IdState(floor=None, is_live=False)


def fold(state: IdState, *, version: int | None, is_delete: bool) -> IdState | None:
    """Return the state after one event, or None if the event does not apply.

    An event without a version always applies and leaves the floor. One with a version
    applies above the floor, and at the floor when the content is live or the event is a
    delete: so a content deleted at its floor comes back only with a greater version or
    with none, and repeating an event in place changes nothing.
    """
    if version is None:
        return IdState(state.floor, not is_delete)
    if state.floor is None or version > state.floor:
        return IdState(version, not is_delete)
    if version == state.floor and (state.is_live or is_delete):
        return IdState(version, not is_delete)
    return None
