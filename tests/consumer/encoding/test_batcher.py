"""When a batch is closed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.encoding.batcher import Batcher, BatchLimits


class TestBatcher:
    def test_a_batch_is_due_when_it_is_full(self) -> None:
        batcher: Batcher[str] = Batcher(BatchLimits(max_rows=3, max_age_seconds=10))
        batcher.add("a", rows=2, now=0.0)
        assert not batcher.is_due(0.0)
        batcher.add("b", rows=2, now=0.0)
        assert batcher.is_due(0.0)
        assert batcher.close() == ["a", "b"]

    def test_a_batch_is_due_when_its_first_item_is_old(self) -> None:
        batcher: Batcher[str] = Batcher(BatchLimits(max_rows=99, max_age_seconds=2))
        batcher.add("a", rows=1, now=5.0)
        batcher.add("b", rows=0, now=6.5)
        assert batcher.seconds_until_due(6.5) == 0.5
        assert not batcher.is_due(6.9)
        assert batcher.is_due(7.0)

    def test_no_batch_is_never_due(self) -> None:
        batcher: Batcher[str] = Batcher(BatchLimits())
        assert not batcher.is_due(1e9)
        assert batcher.close() == []

    @given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 10))
    def test_every_item_is_in_one_batch_in_order(self, rows: list[int], max_rows: int) -> None:
        batcher: Batcher[int] = Batcher(BatchLimits(max_rows=max_rows, max_age_seconds=1e9))
        batches: list[list[int]] = []
        for index, weight in enumerate(rows):
            batcher.add(index, rows=weight, now=0.0)
            if batcher.is_due(0.0):
                batches.append(batcher.close())
        batches.append(batcher.close())
        assert [item for batch in batches for item in batch] == list(range(len(rows)))
        assert all(sum(rows[i] for i in batch[:-1]) < max_rows for batch in batches)
