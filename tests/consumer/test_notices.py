"""The mailbox between the writer thread and the intake thread."""

from __future__ import annotations

from consumer.notices import Committed, Notices, ShardFenced


def test_notices_are_taken_once_in_the_order_in_which_they_were_put() -> None:
    notices = Notices()
    put = [Committed(0, 5, 1000), ShardFenced(1, 2), Committed(0, 6, 1001)]
    for notice in put:
        notices.put(notice)
    assert notices.take_all() == put
    assert notices.take_all() == []
