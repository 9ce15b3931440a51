"""No caller takes so much that another finds nothing."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from query_api.contents.live_routes import LiveStreams
from query_api.errors import ApiError
from query_api.serving.request_slots import RequestSlots


def test_one_caller_leaves_three_quarters_of_the_live_streams_to_others() -> None:
    streams = LiveStreams(max_streams=2)
    with ExitStack() as held:
        for caller in ("a", "a", "b", "b", "c", "c", "d", "d"):
            held.enter_context(streams.slot(caller))
        assert streams.num_open == 8
        for caller in ("a", "e"):
            with pytest.raises(ApiError, match="too many live streams"):
                streams.slot(caller)
    assert streams.num_open == 0
    with streams.slot("a"):
        assert streams.num_open == 1


def test_a_caller_that_waits_for_all_it_may_keeps_no_other_from_waiting() -> None:
    slots = RequestSlots(2)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(slots.working("a"))
            held.enter_context(slots.of("a").waiting())
        with (
            slots.working("a"),
            pytest.raises(ApiError, match="waiting for uploads"),
            slots.of("a").waiting(),
        ):
            pass
        with slots.working("b"), slots.of("b").waiting():
            assert slots.num_waiting == 3
    assert slots.num_waiting == 0


def test_the_last_quarter_of_the_slots_is_for_callers_that_have_few() -> None:
    slots = RequestSlots(8)
    with ExitStack() as held:
        for _ in range(6):
            held.enter_context(slots.working("busy"))
        with pytest.raises(ApiError, match="too many requests"):
            held.enter_context(slots.working("busy"))
        for _ in range(2):
            held.enter_context(slots.working("another"))
        with pytest.raises(ApiError, match="too many requests"):
            held.enter_context(slots.working("a third"))
    with slots.working("busy"):
        pass
