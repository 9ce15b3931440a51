"""Blocking work in threads, and how much of it is under way."""

from __future__ import annotations

import asyncio
import threading

import pytest

from query_api.serving.workers import Workers
from tests.consumer.running import PATIENCE_SECONDS


async def test_workers_are_busy_until_all_is_done() -> None:
    gate = threading.Event()
    with Workers(1) as workers:
        waiting, failing = workers.run(gate.wait, PATIENCE_SECONDS), workers.run(int, "no number")
        assert workers.is_busy
        gate.set()
        assert await waiting
        with pytest.raises(ValueError, match="no number"):
            await failing
        assert not workers.is_busy


async def test_workers_that_have_ended_take_nothing_and_are_not_busy() -> None:
    with Workers(1) as workers:
        assert await workers.run(int) == 0
    with pytest.raises(RuntimeError):
        workers.run(int)
    assert not workers.is_busy


async def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    barrier = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    with Workers(3) as workers:
        assert len(await asyncio.gather(*(workers.run(barrier.wait) for _ in range(6)))) == 6


async def test_calls_begin_in_the_order_in_which_they_came() -> None:
    begun: list[int] = []
    with Workers(1) as workers:
        await asyncio.gather(*(workers.run(begun.append, number) for number in range(50)))
    assert begun == list(range(50))


async def test_a_call_that_nobody_waits_for_any_more_is_not_made() -> None:
    gate, made = threading.Event(), threading.Event()
    with Workers(1) as workers:
        running, given_up = workers.run(gate.wait, PATIENCE_SECONDS), workers.run(made.set)
        given_up.cancel()
        await asyncio.sleep(0)  # the event loop hands it on to the thread's side
        gate.set()
        assert await running
        await workers.run(int)
        assert not workers.is_busy
    assert not made.is_set()


async def test_what_was_given_up_while_it_ran_harms_nobody() -> None:
    gate = threading.Event()
    with Workers(1) as workers:
        given_up = workers.run(gate.wait, PATIENCE_SECONDS)
        given_up.cancel()
        gate.set()
        assert await workers.run(int) == 0
        assert not workers.is_busy
    assert given_up.cancelled()


async def test_the_end_finishes_what_was_handed_over() -> None:
    with Workers(2) as workers:
        handed_over = [workers.run(int, str(number)) for number in range(20)]
    assert await asyncio.gather(*handed_over) == list(range(20))
