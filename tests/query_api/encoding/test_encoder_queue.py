"""Queries wait for each other only where that makes larger batches, and not for long."""

from __future__ import annotations

import pytest

from query_api.encoding.encoder_queue import BatchPause


def after(num_encoded: int, num_waiting: int = 0, max_seconds: float = 1.0) -> BatchPause:
    return BatchPause.after(num_encoded, num_waiting, began=10.0, ended=10.5, max_seconds=max_seconds)


def test_nobody_waits_at_first_nor_after_a_query_that_was_alone() -> None:
    assert BatchPause().is_over(1, 0.0, is_quiet=False)
    assert after(1, num_waiting=1).is_over(1, 10.5, is_quiet=False)


def test_after_a_batch_of_several_the_others_are_waited_for() -> None:
    pause = after(13, num_waiting=3)
    assert not pause.is_over(15, 10.6, is_quiet=False)
    assert pause.is_over(16, 10.6, is_quiet=False)


def test_nothing_is_waited_for_that_is_not_under_way() -> None:
    assert after(13, num_waiting=3).is_over(3, 10.6, is_quiet=True)


@pytest.mark.parametrize(
    ("max_seconds", "until"),
    [pytest.param(1.0, 11.0, id="as long as the batch took"), pytest.param(0.1, 10.6, id="the bound")],
)
def test_the_wait_is_bounded(max_seconds: float, until: float) -> None:
    pause = after(2, max_seconds=max_seconds)
    assert not pause.is_over(1, until - 0.01, is_quiet=False)
    assert pause.is_over(1, until, is_quiet=False)
