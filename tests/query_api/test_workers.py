"""Blocking work goes to the thread that was free last, and its outcome straight to the loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from query_api.workers import Workers


async def test_workers_are_busy_until_all_is_done() -> None:
    gate = threading.Event()
    with Workers(1) as workers:
        waiting, failing = workers.run(gate.wait, 10), workers.run(int, "no number")
        assert workers.is_busy
        gate.set()
        assert await waiting
        with pytest.raises(ValueError, match="no number"):
            await failing
        assert not workers.is_busy


async def test_workers_that_are_not_running_are_not_busy() -> None:
    workers = Workers(1)
    with pytest.raises(RuntimeError):
        workers.run(int)
    with workers:
        assert await workers.run(int) == 0
    with pytest.raises(RuntimeError):
        workers.run(int)
    assert not workers.is_busy


async def test_the_thread_that_was_free_last_works_next() -> None:
    all_there = threading.Barrier(3, timeout=10)
    with Workers(3) as workers:
        await asyncio.gather(*(workers.run(all_there.wait) for _ in range(3)))
        names = {await workers.run(_thread_name) for _ in range(20)}
    assert len(names) == 1


async def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    barrier = threading.Barrier(3, timeout=10)
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
        running, given_up = workers.run(gate.wait, 10), workers.run(made.set)
        given_up.cancel()
        gate.set()
        assert await running
        await workers.run(int)
        assert not workers.is_busy
    assert not made.is_set()


async def test_what_was_given_up_while_it_ran_harms_nobody() -> None:
    gate = threading.Event()
    with Workers(1) as workers:
        given_up = workers.run(gate.wait, 10)
        given_up.cancel()
        gate.set()
        assert await workers.run(int) == 0
        assert not workers.is_busy
    assert given_up.cancelled()


async def test_the_end_finishes_what_was_handed_over() -> None:
    with Workers(2) as workers:
        handed_over = [workers.run(int, str(number)) for number in range(20)]
    assert await asyncio.gather(*handed_over) == list(range(20))


async def test_a_thread_that_waits_keeps_nothing_of_its_last_call() -> None:
    class Held:
        def use(self) -> Held:
            return self

    held = Held()
    reference = weakref.ref(held)
    with Workers(1) as workers:
        await workers.run(held.use)
        del held
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None


def _thread_name() -> str:
    return threading.current_thread().name
