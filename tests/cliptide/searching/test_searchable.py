from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from cliptide.searching.query_client import IndexState, QueryServiceAway
from cliptide.searching.searchable import (
    NotSearchableInTime,
    find_missing,
    missing_offsets,
    wait_until_covered,
    wanted_offsets,
)
from event_log.records import Delivery


@dataclass
class ScriptedView:
    """Answers with one state after another, and then always with the last. None means no answer."""

    states: list[Mapping[str, int] | None]
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_looks: int = 0

    def index(self) -> IndexState:
        state = self.states[min(self.num_looks, len(self.states) - 1)]
        self.num_looks += 1
        if state is None:
            raise QueryServiceAway("no answer")
        return IndexState(state, 0)

    def content(self, content_id: str) -> dict[str, Any] | None:
        return self.contents.get(content_id)


class FakeTime:
    now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(view: ScriptedView, wanted: dict[str, int]) -> None:
    time = FakeTime()
    wait_until_covered(view, wanted, timeout_seconds=5.0, clock=time.clock, sleep=time.sleep)


def test_the_greatest_next_offset_of_a_shard_is_wanted() -> None:
    deliveries = [Delivery("up", 0, 4, 5), Delivery("up", 1, 0, 1), Delivery("up", 0, 2, 3)]
    assert wanted_offsets(deliveries) == {"up-0": 5, "up-1": 1}
    assert wanted_offsets([Delivery("up", 0, 8, 9)], {"up-0": 5, "up-1": 1}) == {"up-0": 9, "up-1": 1}


def test_a_shard_that_is_not_there_yet_has_reached_nothing() -> None:
    assert missing_offsets({"up-0": 5, "up-1": 1, "up-2": 3}, {"up-0": 4, "up-2": 3}) == {
        "up-0": (4, 5),
        "up-1": (0, 1),
    }


def test_waiting_ends_when_every_offset_is_covered() -> None:
    view = ScriptedView([None, {}, {"up-0": 4}, {"up-0": 5}])
    wait(view, {"up-0": 5})
    assert view.num_looks == 4


def test_waiting_in_vain_says_how_far_it_came() -> None:
    with pytest.raises(NotSearchableInTime, match="up-0 at 4 of 5") as raised:
        wait(ScriptedView([{"up-0": 4}]), {"up-0": 5})
    assert raised.value.missing == {"up-0": (4, 5)}


def test_a_service_that_never_answers_is_named_as_the_reason() -> None:
    with pytest.raises(QueryServiceAway):
        wait(ScriptedView([None]), {"up-0": 5})


def test_contents_without_an_answer_are_missing_in_order() -> None:
    view = ScriptedView([{}], contents={f"c{n}": {} for n in range(30) if n not in (3, 17)})
    assert list(find_missing(view, [f"c{n}" for n in range(30)])) == ["c3", "c17"]
