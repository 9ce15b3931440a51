"""Up to which time a shard covers its log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.writing.watermark import WatermarkClock


class TestWatermark:
    def test_caught_up_it_is_the_time_of_the_answer_less_the_margin(self) -> None:
        clock = WatermarkClock(100)
        assert clock.advance(caught_up_at_ms=4900) == 4800

    def test_behind_it_is_the_newest_timestamp_less_the_margin(self) -> None:
        clock = WatermarkClock(100)
        clock.covered(3000, now_ms=4000)
        clock.covered(2000, now_ms=5000)
        assert clock.advance(caught_up_at_ms=None) == 2900

    def test_a_clock_in_the_future_promises_nothing_beyond_its_commit(self) -> None:
        clock = WatermarkClock(100)
        clock.covered(9_999_999, now_ms=5000)
        assert clock.advance(caught_up_at_ms=None) == 4900
        clock.covered(3000, now_ms=6000)
        assert clock.advance(caught_up_at_ms=None) is None

    def test_before_anything_is_known_there_is_none(self) -> None:
        assert WatermarkClock(100).advance(caught_up_at_ms=None) is None

    def test_a_commit_carries_the_watermark_that_it_will_make_true(self) -> None:
        clock = WatermarkClock(100)
        assert clock.after([], now_ms=4000) is None
        assert clock.after([3000, 2000], now_ms=4000) == 2900
        assert clock.after([9_999_999], now_ms=4000) == 3900
        clock.covered(3500, now_ms=4000)
        assert clock.after([3000], now_ms=5000) == 3400

    @given(st.lists(st.tuples(st.integers(0, 10_000), st.none() | st.integers(0, 10_000))))
    def test_it_never_goes_back(self, steps: list[tuple[int, int | None]]) -> None:
        clock, last = WatermarkClock(100), -1_000_000
        for timestamp, caught_up_at in steps:
            clock.covered(timestamp, now_ms=9_000)
            moved = clock.advance(caught_up_at_ms=caught_up_at)
            assert moved is None or moved > last
            last = moved if moved is not None else last
