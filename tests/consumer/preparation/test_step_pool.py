"""Threads that run steps, without a future for each."""

from __future__ import annotations

import threading

from consumer.preparation.step_pool import StepPool
from tests.consumer.running import PATIENCE_SECONDS


def test_one_thread_runs_the_steps_in_the_order_in_which_they_came() -> None:
    pool, done, seen = StepPool(1, "test"), threading.Event(), list[int]()
    for number in range(100):
        pool.submit(lambda number=number: seen.append(number))  # type: ignore[misc]
    pool.submit(done.set)
    assert done.wait(PATIENCE_SECONDS)
    assert seen == list(range(100))
    pool.close()


def test_several_threads_work_at_the_same_time() -> None:
    pool, together = StepPool(2, "test"), threading.Barrier(3)
    for _ in range(2):
        pool.submit(lambda: together.wait(PATIENCE_SECONDS))
    together.wait(PATIENCE_SECONDS)
    assert not together.broken, "both steps and this thread have met"
    pool.close()


def test_a_closed_pool_forgets_what_has_not_begun() -> None:
    pool, begun, go_on, seen = StepPool(1, "test"), threading.Event(), threading.Event(), list[str]()
    thread = list[threading.Thread]()

    def hold() -> None:
        thread.append(threading.current_thread())
        begun.set()
        go_on.wait(PATIENCE_SECONDS)

    pool.submit(hold)
    pool.submit(lambda: seen.append("forgotten"))
    assert begun.wait(PATIENCE_SECONDS)
    pool.close()
    pool.submit(lambda: seen.append("too late"))
    go_on.set()
    thread[0].join(PATIENCE_SECONDS)
    assert not thread[0].is_alive()
    assert seen == []


def test_a_pool_without_a_step_has_started_no_thread() -> None:
    before = set(threading.enumerate())  # threads of other tests may be ending
    pool = StepPool(4, "test")
    assert set(threading.enumerate()) <= before
    pool.close()
