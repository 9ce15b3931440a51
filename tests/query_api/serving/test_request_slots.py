"""Requests beyond the slots queue in order, and none for longer than it should."""

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

    def ask(self, number: int) -> asyncio.Task[None]:
        self._gates[number] = asyncio.Event()
        return asyncio.create_task(self._work(number))

    async def _work(self, number: int) -> None:
        async with self.slots.working():
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
    tasks = [worker.ask(number) for number in range(1 + QUEUED_PER_SLOT)]
    await turn()
    with pytest.raises(ApiError, match="too many requests"):
        await worker.ask(99)
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
    assert not worker.slots.are_taken


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
    assert not worker.slots.are_taken


async def test_a_request_that_waits_for_the_index_lets_the_next_one_work() -> None:
    slots = RequestSlots(1, PATIENCE_SECONDS)
    worker = Worker(slots)
    async with slots.working():
        queued = worker.ask(1)
        await turn()
        with slots.waiting():
            await turn()
            assert worker.order == [1]
            worker.finish(1)
            await queued
    assert not slots.are_taken
