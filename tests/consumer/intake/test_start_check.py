"""Where reading starts, and what is refused."""

from __future__ import annotations

import pytest

from consumer.errors import StartRefused
from consumer.intake.start_check import StartNumbers, StartOptions, check_start
from event_log.records import LogRange


class TestStartCheck:
    @pytest.mark.parametrize(
        ("next_offset", "log", "group", "options", "expected"),
        [
            pytest.param(5, (0, 9), 5, StartOptions(), 5, id="as it was"),
            pytest.param(5, (0, 9), None, StartOptions(), 5, id="no group offset"),
            pytest.param(5, (0, 9), 3, StartOptions(), 5, id="the group is behind"),
            pytest.param(5, (5, 9), 5, StartOptions(), 5, id="at the log's start"),
            pytest.param(9, (0, 9), 9, StartOptions(), 9, id="at the log's end"),
            pytest.param(5, (0, 9), 8, StartOptions(accepts_rewind=True), 5, id="rewind accepted"),
            pytest.param(5, (7, 9), 5, StartOptions(accepts_data_loss=True), 7, id="loss accepted"),
            pytest.param(9, (0, 8), 9, StartOptions(trusts_log_end=False), 9, id="an end not trusted"),
        ],
    )
    def test_where_reading_starts(
        self, next_offset: int, log: tuple[int, int], group: int | None, options: StartOptions, expected: int
    ) -> None:
        numbers = StartNumbers("uploads-0", next_offset, LogRange(*log), group)
        assert check_start(numbers, options) == expected

    @pytest.mark.parametrize(
        ("next_offset", "log", "group", "message"),
        [
            pytest.param(5, (7, 9), 5, r"goes on at 5 .* begins at 7.*ACCEPT_DATA_LOSS", id="records gone"),
            pytest.param(10, (0, 9), 9, r"goes on at 10 .* ends at 9.*CLIPTIDE_INDEX__ID", id="recreated"),
            pytest.param(5, (0, 9), 6, r"group is at 6 .* at 5.*ACCEPT_REWIND", id="the group is ahead"),
        ],
    )
    def test_what_is_refused(
        self, next_offset: int, log: tuple[int, int], group: int | None, message: str
    ) -> None:
        with pytest.raises(StartRefused, match=message):
            check_start(StartNumbers("uploads-0", next_offset, LogRange(*log), group), StartOptions())
