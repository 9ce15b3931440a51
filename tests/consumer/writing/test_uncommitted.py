"""What a shard keeps of its handovers until a commit covers them."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from clip_index.content import Delta
from consumer.dead_letters.dead_letter import DeadLetterDelivery
from consumer.errors import ConsumerFault
from consumer.tasks import Handover
from consumer.writing.uncommitted import UncommittedHandovers
from tests.consumer.records import Letter


def handover(from_offset: int, next_offset: int) -> Handover:
    return Handover(0, 1, Delta(from_offset, next_offset), size_bytes=10)


def holding(*handovers: Handover, num_added: int = 0) -> UncommittedHandovers:
    uncommitted = UncommittedHandovers()
    for one in handovers:
        uncommitted.accept(one)
    if num_added:
        uncommitted.mark_added(num_added, now=100.0)
    return uncommitted


def test_bytes_move_from_waiting_to_added_and_go_with_the_commit() -> None:
    uncommitted = holding(handover(0, 1), handover(1, 2), handover(2, 3), num_added=2)
    assert (uncommitted.waiting_bytes, uncommitted.added_bytes) == (10, 20)
    assert uncommitted.take_committed() == [handover(0, 1), handover(1, 2)]
    assert (uncommitted.waiting_bytes, uncommitted.added_bytes) == (10, 0)
    assert len(uncommitted) == 1


def test_the_age_is_that_of_the_first_one_added() -> None:
    uncommitted = holding(handover(0, 1), handover(1, 2), num_added=1)
    uncommitted.mark_added(1, now=105.0)
    assert uncommitted.added_age(107.0) == 7.0
    uncommitted.take_committed()
    assert uncommitted.added_age(107.0) == 0.0


def test_what_is_made_due_stays_due_while_more_is_added() -> None:
    uncommitted = holding(handover(0, 1))
    uncommitted.make_due()
    uncommitted.mark_added(1, now=100.0)
    assert uncommitted.added_age(100.0) == float("inf")


def test_one_that_waits_for_its_dead_letter_holds_back_what_follows() -> None:
    late = Handover(0, 1, Delta(1, 2), (DeadLetterDelivery(Letter(Future)),))
    uncommitted = holding(handover(0, 1), late, handover(2, 3))
    assert uncommitted.delivered(0.0) == [handover(0, 1)]


@pytest.mark.parametrize(
    ("on_disk", "committed", "waiting"),
    [
        pytest.param(0, [], [handover(0, 1), handover(1, 3), handover(3, 4)], id="nothing is committed"),
        pytest.param(1, [handover(0, 1)], [handover(1, 3), handover(3, 4)], id="one is committed"),
        pytest.param(3, [handover(0, 1), handover(1, 3)], [handover(3, 4)], id="all that was added is"),
    ],
)
def test_what_the_disk_lacks_waits_to_be_added_again(
    on_disk: int, committed: list[Handover], waiting: list[Handover]
) -> None:
    uncommitted = holding(handover(0, 1), handover(1, 3), handover(3, 4), num_added=2)
    assert uncommitted.return_uncommitted("uploads-0", on_disk) == committed
    assert uncommitted.delivered(0.0) == waiting
    assert (uncommitted.waiting_bytes, uncommitted.added_bytes) == (10 * len(waiting), 0)


def test_a_disk_where_no_handover_begins_is_a_fault() -> None:
    uncommitted = holding(handover(0, 1), handover(1, 3), num_added=2)
    with pytest.raises(ConsumerFault, match="uploads-0: the disk is at 2, where no handover begins"):
        uncommitted.return_uncommitted("uploads-0", 2)
