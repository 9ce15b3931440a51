"""Which event wins: the state of one content id, folded over its events in offset order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdState:
    """`floor` is the greatest version that was applied so far; None while no event had a version."""

    floor: int | None
    is_live: bool


UNSEEN = IdState(floor=None, is_live=False)


def takes_patch(state: IdState) -> bool:
    """Tell whether a patch applies to an id in this state, which it leaves as it is.

    A patch has no version: it changes the content that its id holds at its place in the log, and the next
    upload that applies replaces all of it. So the fold has one order, that of the log, and an id without a
    live content has nothing that a patch could change.
    """
    return state.is_live


def fold(state: IdState, *, version: int | None, is_delete: bool) -> IdState | None:
    """Return the state after one event, or None if the event does not apply.

    An event without a version always applies, and the floor stays. An event with a version
    applies above the floor. At the floor it applies if the content is live or the event is a
    delete. So a content that was deleted at its floor comes back only with a greater version
    or without a version, and an event that comes twice in a row changes nothing.
    """
    if version is None:
        return IdState(state.floor, not is_delete)
    if state.floor is None or version > state.floor:
        return IdState(version, not is_delete)
    if version == state.floor and (state.is_live or is_delete):
        return IdState(version, not is_delete)
    return None
