"""When dead letters are a flood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters.dead_letter_limit import DeadLetterLimit, FloodThreshold
from consumer.errors import DeadLetterFlood


class TestDeadLetterLimit:
    def test_few_dead_letters_are_no_flood_whatever_their_share(self) -> None:
        limit = DeadLetterLimit(FloodThreshold(max_share=0.1, min_dead_letters=10, window=100))
        for _ in range(9):
            limit.set_aside("undecodable")
        with pytest.raises(DeadLetterFlood, match="10 of the latest 10"):
            limit.set_aside("undecodable")

    def test_many_dead_letters_of_a_large_share_are_a_flood(self) -> None:
        limit = DeadLetterLimit(FloodThreshold(max_share=0.5, min_dead_letters=10, window=100))
        for _ in range(9):
            limit.passed()
            limit.set_aside("undecodable")
        with pytest.raises(DeadLetterFlood, match=r"10 of the latest 19 .* as no_image"):
            limit.set_aside("no_image")

    def test_old_records_leave_the_window(self) -> None:
        limit = DeadLetterLimit(FloodThreshold(max_share=0.5, min_dead_letters=5, window=10))
        for number in range(50):
            limit.set_aside("x") if number < 4 else limit.passed()
        for _ in range(5):
            limit.set_aside("x")
        with pytest.raises(DeadLetterFlood, match="6 of the latest 10"):
            limit.set_aside("x")

    @given(st.lists(st.booleans(), max_size=80))
    def test_the_count_is_that_of_the_window(self, dead: list[bool]) -> None:
        threshold = FloodThreshold(max_share=0.4, min_dead_letters=3, window=7)
        limit = DeadLetterLimit(threshold)
        for index, is_dead in enumerate(dead):
            window = dead[max(0, index - 6) : index + 1]
            is_flood = is_dead and sum(window) >= 3 and sum(window) > 0.4 * len(window)
            if is_flood:
                with pytest.raises(DeadLetterFlood):
                    limit.set_aside("x")
            elif is_dead:
                limit.set_aside("x")
            else:
                limit.passed()
