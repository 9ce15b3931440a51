"""How a task settles, and how it is cancelled."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from consumer.tasks import NothingThere, Task
from tests.consumer.records import record


class TestTask:
    def task(self) -> Task:
        return Task(0, 1, 4, 5, record(4), 0, 10)

    def test_it_is_ready_with_an_outcome_or_an_error(self) -> None:
        good, bad, open_ = self.task(), self.task(), self.task()
        good.outcome, bad.error = NothingThere(), RuntimeError("a defect")
        assert [task.is_ready for task in (good, bad, open_)] == [True, True, False]
        assert good.settled() == NothingThere()
        with pytest.raises(RuntimeError, match="a defect"):
            bad.settled()

    @pytest.mark.parametrize("is_early", [True, False], ids=["cancelled before", "cancelled after"])
    def test_cancelling_cancels_the_fetch(self, is_early: bool) -> None:
        task, fetching = self.task(), Future[bytes]()
        if is_early:
            task.cancel()
        task.fetch(fetching)
        task.cancel()
        assert fetching.cancelled()
