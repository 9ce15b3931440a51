"""Which records go through preparation together."""

from __future__ import annotations

import pytest

from consumer.intake.dispatcher import grouped
from consumer.tasks import Task
from tests.consumer.records import record


class TestGroups:
    def tasks(self, *sizes: int) -> list[Task]:
        return [
            Task(0, 1, offset, offset + 1, record(offset, size=size), offset, size)
            for offset, size in enumerate(sizes)
        ]

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        [
            pytest.param([], [], id="none"),
            pytest.param([10] * 70, [32, 32, 6], id="small ones"),
            pytest.param([40_000, 40_000], [1, 1], id="large ones"),
            pytest.param([10, 20_000, 20_000, 10], [2, 2], id="as many as are small together"),
            pytest.param([10, 40_000, 10], [1, 1, 1], id="a large one among small ones"),
        ],
    )
    def test_small_records_go_together_and_a_large_one_alone(
        self, sizes: list[int], expected: list[int]
    ) -> None:
        tasks = self.tasks(*sizes)
        groups = list(grouped(tasks))
        assert [len(group) for group in groups] == expected
        assert [task for group in groups for task in group] == tasks
