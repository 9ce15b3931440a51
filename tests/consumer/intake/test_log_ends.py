"""How long a partition has been behind."""

from __future__ import annotations

from consumer.intake.log_ends import LogEnds


class TestLogEnds:
    def test_the_lag_is_as_old_as_the_latest_end_that_is_committed(self) -> None:
        ends = LogEnds()
        for at, end in [(100.0, 5), (101.0, 7), (102.0, 9)]:
            ends.observe(end, now=at)
        assert ends.seconds_behind(6, newest_age=50_000.0, now=110.0) == 10.0
        assert ends.seconds_behind(8, newest_age=-3600.0, now=110.0) == 9.0
        assert ends.seconds_behind(8, newest_age=-3600.0, now=111.0) == 10.0

    def test_before_an_end_is_committed_it_is_as_old_as_the_newest_record_or_the_first_end(self) -> None:
        ends = LogEnds()
        ends.observe(5, now=100.0)
        assert ends.seconds_behind(3, newest_age=3600.0, now=102.0) == 3600.0
        assert ends.seconds_behind(3, newest_age=-3600.0, now=102.0) == 2.0

    def test_nothing_is_behind_the_end_that_was_seen_last(self) -> None:
        ends = LogEnds()
        ends.observe(5, now=100.0)
        assert ends.seconds_behind(5, newest_age=3600.0, now=100.0) == 0.0

    def test_a_long_lag_is_remembered_in_few_ends(self) -> None:
        ends, day = LogEnds(), 24 * 3600
        for second in range(day):
            ends.observe(second, now=float(second))
        assert len(ends) < 1000
        for committed in (3600, day // 2, day - 60):
            behind = ends.seconds_behind(committed, newest_age=-1.0, now=float(day))
            assert 0 <= behind - (day - committed) <= 0.01 * committed
