"""How long to wait before trying again."""

from __future__ import annotations

from consumer.backoff import Backoff


def test_backoff_doubles_up_to_its_longest() -> None:
    backoff = Backoff(first_seconds=0.5, longest_seconds=3.0)
    assert [backoff.seconds(n) for n in (1, 2, 3, 4, 1000)] == [0.5, 1.0, 2.0, 3.0, 3.0]
