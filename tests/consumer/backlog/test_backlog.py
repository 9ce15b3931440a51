"""What is read and not yet encoded, over all partitions."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from itertools import chain
from pathlib import Path

from consumer.backlog.backlog import Backlog, BacklogLimits
from consumer.quarantine.inflight import InFlight, InFlightFile
from consumer.tasks import TASK_BYTES, NothingThere, Task
from tests.consumer.records import record


def submit_all(backlog: Backlog) -> dict[int, list[Task]]:
    """Say that everything is under way; return the tasks by partition."""
    submitted: dict[int, list[Task]] = {}
    for lane, tasks in backlog.submittable():
        backlog.submitted(lane, len(tasks))
        submitted[lane.partition] = tasks
    return submitted


def settle_all(tasks: Iterable[Task]) -> None:
    for task in tasks:
        task.outcome = NothingThere()


class TestBacklog:
    def backlog(self, tmp_path: Path, *, max_bytes: int = 100) -> Backlog:
        backlog = Backlog(BacklogLimits(max_bytes=max_bytes))
        for partition in (0, 1):
            backlog.open(partition, 1, 0, InFlightFile(tmp_path / f"{partition}.json", InFlight()))
        return backlog

    def test_tasks_are_taken_in_order_of_arrival_across_partitions(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.receive([record(0), record(0, partition=1), record(1), record(1, partition=1)])
        settle_all(chain(*submit_all(backlog).values()))
        taken = backlog.take(10, 0.0)
        assert [(task.partition, task.from_offset) for task in taken] == [(0, 0), (1, 0), (0, 1), (1, 1)]

    def test_no_more_tasks_are_taken_than_asked_for(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        received = [record(0), record(1), record(0, partition=1), record(2), record(1, partition=1)]
        backlog.receive(received)
        settle_all(chain(*submit_all(backlog).values()))
        taken = [backlog.take(2, 0.0) for _ in range(4)]
        assert [len(tasks) for tasks in taken] == [2, 2, 1, 0]
        assert [task.record for tasks in taken for task in tasks] == received
        assert backlog.size_bytes == 0
        assert not backlog.is_under_way

    def test_settled_tasks_wake_the_one_who_takes(self, tmp_path: Path) -> None:
        backlog, taken = self.backlog(tmp_path), list[Task]()
        backlog.receive([record(0)])
        tasks = submit_all(backlog)[0]
        taker = threading.Thread(target=lambda: taken.extend(backlog.take(1, 60.0)))
        taker.start()
        settle_all(tasks)
        backlog.notify()
        taker.join(60.0)
        assert taken == tasks

    def test_a_task_that_is_not_ready_holds_back_its_partition_alone(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.receive([record(0), record(1), record(0, partition=1)])
        tasks = submit_all(backlog)
        settle_all([tasks[0][1], *tasks[1]])
        assert [task.partition for task in backlog.take(10, 0.0)] == [1]
        settle_all([tasks[0][0]])
        assert [task.from_offset for task in backlog.take(10, 0.0)] == [0, 1]

    def test_a_partition_is_paused_once_and_resumed_when_half_is_free(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path, max_bytes=2 * 5 * (10 + TASK_BYTES))
        backlog.receive([record(offset, size=10) for offset in range(5)])
        assert backlog.flow_change().pause == {0}
        assert backlog.flow_change().pause == frozenset()
        settle_all(chain(*submit_all(backlog).values()))
        backlog.take(2, 0.0)
        assert backlog.flow_change().resume == frozenset()
        backlog.take(1, 0.0)
        assert backlog.flow_change().resume == {0}

    def test_many_small_records_fill_a_buffer_by_what_they_take_in_memory(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path, max_bytes=2 * 100_000)
        backlog.receive([record(offset, size=1) for offset in range(250)])
        assert backlog.flow_change().pause == {0}

    def test_headers_fill_a_buffer_too(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path, max_bytes=2 * 100_000)
        backlog.receive([replace(record(0), headers=(("trace", bytes(100_000)), ("none", None)))])
        assert backlog.flow_change().pause == {0}

    def test_closing_cancels_what_is_under_way(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.receive([record(0)])
        (task,) = submit_all(backlog)[0]
        fetching = Future[bytes]()
        task.fetch(fetching)
        backlog.close(0)
        assert task.is_cancelled
        assert fetching.cancelled()
        assert backlog.partitions == [1]
