"""The tasks of one partition, in offset order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from consumer.tasks import NothingThere
from event_log.records import EndOfPartition, Record
from tests.consumer.records import lane, record


class TestLane:
    def test_tasks_cover_the_log_without_a_hole(self, tmp_path: Path) -> None:
        one = lane(tmp_path, next_offset=3)
        for received in (record(3), record(7), EndOfPartition(0, 10, 1)):
            one.receive(received, 0)
        assert [(task.from_offset, task.next_offset) for task in one.tasks] == [(3, 4), (4, 8), (8, 10)]
        assert [task.size_bytes for task in one.tasks] == [10, 10, 0]

    def test_headers_weigh_as_much_as_values(self, tmp_path: Path) -> None:
        one = lane(tmp_path)
        one.receive(replace(record(0), headers=(("trace", b"t" * 90), ("empty", None))), 0)
        assert one.tasks[0].size_bytes == 10 + 5 + 90 + 5

    @pytest.mark.parametrize(
        "received",
        [
            pytest.param(record(5, epoch=0), id="an older assignment"),
            pytest.param(record(1), id="an offset already here"),
            pytest.param(EndOfPartition(0, 2, 1), id="an end without a gap"),
        ],
    )
    def test_what_is_stale_is_dropped(self, tmp_path: Path, received: Record | EndOfPartition) -> None:
        assert lane(tmp_path, next_offset=2).receive(received, 0) is None

    def test_suspects_go_one_at_a_time_and_the_rest_together(self, tmp_path: Path) -> None:
        one = lane(tmp_path, suspects_below=2)
        for offset in range(5):
            one.receive(record(offset), offset)
        sizes = []
        while tasks := one.submittable(10):
            sizes.append(len(tasks))
            one.submitted(len(tasks))
            assert not any(one.is_suspect(task) for task in one.submittable(10))
            for task in tasks:
                task.outcome = NothingThere()
                assert one.take(1) == [task]
        assert sizes == [1, 1, 3]

    def test_the_window_bounds_what_is_under_way(self, tmp_path: Path) -> None:
        one = lane(tmp_path)
        for offset in range(9):
            one.receive(record(offset), offset)
        one.submitted(len(one.submittable(4)))
        assert one.submittable(4) == []
        assert len(one.submittable(6)) == 2
