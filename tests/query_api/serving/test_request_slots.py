"""Requests beyond the slots queue in order, fairly among their callers, and none for too long."""

from __future__ import annotations

import asyncio

import pytest

from query_api.errors import ApiError
from query_api.serving.request_slots import QUEUED_PER_SLOT, RequestSlots
from tests.consumer.running import PATIENCE_SECONDS


class Worker:
    """Requests that work until they are let go, and what became of each."""

    def __init__(self, slots: RequestSlots) -> None:
        self.slots = slots
        self.order: list[int] = []
        self._gates: dict[int, asyncio.Event] = {}

    def ask(self, number: int, caller: str = "") -> asyncio.Task[None]:
        self._gates[number] = asyncio.Event()
        return asyncio.create_task(self._work(number, caller))

    async def _work(self, number: int, caller: str) -> None:
        async with self.slots.working_in_turn(caller):
            self.order.append(number)
            await self._gates[number].wait()

    def finish(self, number: int) -> None:
        self._gates[number].set()


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_queue_and_are_served_in_the_order_in_which_they_came() -> None:
    worker = Worker(RequestSlots(1, PATIENCE_SECONDS))
    tasks = [worker.ask(number) for number in range(4)]
    for number in range(4):
        await turn()
        assert worker.order == list(range(number + 1))
        worker.finish(number)
    await asyncio.gather(*tasks)


async def test_a_request_that_has_queued_too_long_is_refused_and_takes_no_slot() -> None:
    worker = Worker(RequestSlots(1, 0.01))
    first, second = worker.ask(1), worker.ask(2)
    with pytest.raises(ApiError, match=r"within 0\.01 s") as refused:
        await second
    assert (refused.value.code, refused.value.headers["Retry-After"]) == ("overloaded", "1")
    worker.finish(1)
    await first
    third = worker.ask(3)
    await turn()
    assert worker.order == [1, 3]
    worker.finish(3)
    await third


async def test_the_queue_has_a_bound() -> None:
    worker = Worker(RequestSlots(1, PATIENCE_SECONDS))
    tasks = [worker.ask(number, str(number)) for number in range(1 + QUEUED_PER_SLOT)]
    await turn()
    assert worker.slots.num_queued == QUEUED_PER_SLOT
    with pytest.raises(ApiError, match="too many requests"):
        await worker.ask(99, "another")
    for number in range(len(tasks)):
        worker.finish(number)
    await asyncio.gather(*tasks)


async def test_a_client_that_leaves_the_queue_takes_nobodys_turn() -> None:
    worker = Worker(RequestSlots(1, PATIENCE_SECONDS))
    first, second, third = (worker.ask(number) for number in (1, 2, 3))
    await turn()
    second.cancel()
    worker.finish(1)
    await turn()
    assert worker.order == [1, 3]
    worker.finish(3)
    await asyncio.gather(first, third)
    assert worker.slots.num_working == 0


async def test_a_client_that_leaves_as_its_turn_comes_hands_it_on() -> None:
    worker = Worker(RequestSlots(1, PATIENCE_SECONDS))
    first, second, third = (worker.ask(number) for number in (1, 2, 3))
    await turn()
    worker.finish(1)
    await first  # gives its slot to the second, which has not run yet
    second.cancel()
    await turn()
    assert worker.order[-1] == 3
    worker.finish(3)
    await third
    assert worker.slots.num_working == 0


async def test_a_free_slot_goes_to_the_caller_that_holds_the_fewest() -> None:
    worker = Worker(RequestSlots(4, PATIENCE_SECONDS))
    tasks = [worker.ask(number, "busy") for number in range(6)]
    await turn()
    assert worker.order == [0, 1, 2]  # the last quarter is for others
    tasks += [worker.ask(number, f"other {number}") for number in (6, 7, 8)]
    await turn()
    assert worker.order == [0, 1, 2, 6]
    for finished, begun in ((0, 7), (1, 8), (2, 3)):
        worker.finish(finished)
        await turn()
        assert worker.order[-1] == begun
    for number in range(len(tasks)):
        worker.finish(number)
    await asyncio.gather(*tasks)


async def test_callers_that_hold_equally_many_take_turns() -> None:
    worker = Worker(RequestSlots(1, PATIENCE_SECONDS))
    callers = {0: "a", 1: "a", 2: "a", 3: "a", 4: "b", 5: "b", 6: "c"}
    tasks = [worker.ask(number, caller) for number, caller in callers.items()]
    for number in range(len(tasks)):
        await turn()
        worker.finish(worker.order[number])
    await asyncio.gather(*tasks)
    assert [callers[number] for number in worker.order] == ["a", "a", "b", "c", "a", "b", "a"]


async def test_one_caller_leaves_a_quarter_of_the_queue_to_others() -> None:
    worker = Worker(RequestSlots(2, PATIENCE_SECONDS))
    held = [worker.ask(number, caller) for number, caller in enumerate(("a", "b"))]
    await turn()
    queued = [worker.ask(number, "greedy") for number in range(2, 2 + 12)]
    await turn()
    assert worker.slots.num_queued == 12
    with pytest.raises(ApiError, match="too many requests"):
        await worker.ask(90, "greedy")
    queued += [worker.ask(number, "small") for number in range(20, 24)]
    await turn()
    assert worker.slots.num_queued == 16
    for task in (*held, *queued):
        task.cancel()
    await asyncio.gather(*held, *queued, return_exceptions=True)
    assert (worker.slots.num_queued, worker.slots.num_working) == (0, 0)


async def test_a_request_that_waits_for_the_index_lets_the_next_one_work() -> None:
    slots = RequestSlots(1, PATIENCE_SECONDS)
    worker = Worker(slots)
    with slots.working():
        queued = worker.ask(1)
        await turn()
        with slots.waiting():
            await turn()
            assert worker.order == [1]
            worker.finish(1)
            await queued
    assert slots.num_working == 0
