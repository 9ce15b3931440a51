"""When a call is sent again, and how long it waits: decided without a network."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from cliptide.client import flows
from cliptide.client.errors import Busy, Refused, Unreachable
from cliptide.client.flows import NO_ANSWER, NO_CONNECTION, Call, Flow, Pause, Reply, send

FOUND = Reply(200, {"found": True})
PATIENCE_SECONDS = 10.0


def refusal(status: int, retry_after: str | None = None) -> Reply:
    return Reply(status, {"error": {"code": "x", "message": "words", "request_id": "r"}}, retry_after)


def follow(flow: Flow[Any], replies: list[Reply]) -> tuple[Any, list[float]]:
    """Answer the calls of a flow in turn; return its result and the pauses that it made."""
    waiting, pauses = list(replies), []
    try:
        step = next(flow)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = flow.send(Reply(NO_ANSWER))
            else:
                step = flow.send(waiting.pop(0))
    except StopIteration as end:
        return end.value, pauses


def sending() -> Flow[Any]:
    return send(Call("POST", "/v1/search", {}), PATIENCE_SECONDS)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_after_the_time_that_it_names(status: int) -> None:
    value, [pause] = follow(sending(), [refusal(status, "3"), FOUND])
    assert value == {"found": True}
    assert 3.0 <= pause <= 3.3


def test_a_date_is_a_time_to_wait_too() -> None:
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=5), usegmt=True)
    _, [pause] = follow(sending(), [refusal(503, soon), FOUND])
    assert 3.0 < pause <= 5.5


@pytest.mark.parametrize("retry_after", [None, "soon"])
def test_without_a_time_the_pauses_grow(retry_after: str | None) -> None:
    _, pauses = follow(sending(), [refusal(503, retry_after)] * 3 + [FOUND])
    assert [round(pause / 0.5) for pause in pauses] == [1, 2, 4]


def test_a_connection_that_was_never_made_is_tried_again() -> None:
    value, pauses = follow(sending(), [Reply(NO_CONNECTION, problem="refused"), FOUND])
    assert value == {"found": True}
    assert len(pauses) == 1


def test_a_request_that_may_have_arrived_is_not_sent_again() -> None:
    with pytest.raises(Unreachable, match="timed out"):
        follow(sending(), [Reply(NO_ANSWER, problem="timed out")])


def test_patience_ends_and_the_last_answer_is_told() -> None:
    with pytest.raises(Busy, match="429 x: words"):
        follow(sending(), [refusal(429, "4")] * 5)


def test_a_longer_wait_than_the_patience_is_not_begun() -> None:
    with pytest.raises(Busy):
        follow(sending(), [refusal(429, "3600")])


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 504])
def test_other_refusals_are_told_at_once(status: int) -> None:
    with pytest.raises(Refused) as caught:
        follow(sending(), [refusal(status, "1")])
    assert not isinstance(caught.value, Busy)


def test_an_answer_of_something_between_is_no_answer_of_the_service() -> None:
    with pytest.raises(Unreachable, match="not the service's"):
        follow(sending(), [Reply(200, None)])
    with pytest.raises(Refused, match="not an error of the service"):
        follow(sending(), [Reply(404, None)])


@pytest.mark.parametrize("content_id", ["", ".", ".."])
def test_an_id_that_would_be_another_address_is_refused_before_it_is_sent(content_id: str) -> None:
    for flow in (flows.delete(content_id, None, 1.0), flows.get_content(content_id, 1.0)):
        with pytest.raises(ValueError, match="no content has an address with the id"):
            next(flow)
