"""From an encoded batch to deltas."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from clip_index.content import ContentFacts, Delta, EncodedContent, RemovedContent
from consumer.dead_letters.dead_letter import DeadLetterDelivery
from consumer.tasks import Handover, Task
from consumer.writing.handovers import (
    Handled,
    build_handovers,
    delivered_handovers,
    delta_before_letters,
    joined_delta,
)
from event_log.errors import FatalLogError, TransientLogError
from event_log.records import Delivery
from tests.consumer.records import Letter, record


class TestHandovers:
    def task(self, offset: int, partition: int = 0, epoch: int = 1) -> Task:
        return Task(partition, epoch, offset, offset + 1, record(offset, partition=partition), offset, 10)

    def test_one_delta_for_each_partition_and_assignment(self) -> None:
        batch = [
            Handled(self.task(4), RemovedContent("a", 4)),
            Handled(self.task(9, partition=1)),
            Handled(self.task(5)),
            Handled(self.task(0, epoch=2)),
        ]
        handovers = build_handovers(batch)
        ranges = [
            (one.partition, one.assignment_epoch, one.delta.from_offset, one.delta.next_offset)
            for one in handovers
        ]
        assert ranges == [(0, 1, 4, 6), (1, 1, 9, 10), (0, 2, 0, 1)]
        assert handovers[0].delta.changes == (RemovedContent("a", 4),)
        assert handovers[0].timestamps_ms == (1004, 1005)

    @pytest.mark.parametrize("absent", [-1, -(2**63), 0])
    def test_a_record_without_a_time_has_none(self, absent: int) -> None:
        without = self.task(4)
        without.record = replace(record(4), timestamp_ms=absent)
        (handover,) = build_handovers([Handled(without), Handled(self.task(5))])
        assert handover.timestamps_ms == (1005,)

    def test_a_handover_weighs_its_changes_and_the_records_of_its_dead_letters(self) -> None:
        letter = DeadLetterDelivery(Letter(Future))
        vectors = np.zeros((4, 8), np.float32)
        facts = ContentFacts(source="tests", occurred_at_ms=0, text="w" * 1000)
        content = EncodedContent("a", 4, "text", vectors, facts)
        (light,) = build_handovers([Handled(self.task(4))])
        (content_only,) = build_handovers([Handled(self.task(4), content)])
        (both,) = build_handovers([Handled(self.task(4), content), Handled(self.task(5), dead_letter=letter)])
        assert light.size_bytes > 0
        assert content_only.size_bytes >= vectors.nbytes + 1000
        assert both.size_bytes == content_only.size_bytes + light.size_bytes + self.task(5).held_bytes

    def handover(self, from_offset: int, next_offset: int) -> Handover:
        changes = [RemovedContent(str(offset), offset) for offset in range(from_offset, next_offset)]
        return Handover(0, 1, Delta(from_offset, next_offset, changes))

    def test_handovers_that_follow_each_other_are_added_as_one_delta(self) -> None:
        waiting = [self.handover(4, 6), self.handover(6, 7)]
        delta = joined_delta(delivered_handovers(waiting, now=0.0))
        assert (delta.from_offset, delta.next_offset) == (4, 7)
        assert [change.offset for change in delta.changes] == [4, 5, 6]

    def test_a_handover_that_begins_elsewhere_is_not_joined(self) -> None:
        waiting = [self.handover(4, 6), self.handover(7, 8)]
        assert delivered_handovers(waiting, now=0.0) == waiting[:1]

    def test_what_follows_an_undelivered_dead_letter_waits_with_it(self) -> None:
        letter = DeadLetterDelivery(Letter(Future))
        late = Handover(0, 1, Delta(6, 7), (letter,))
        waiting = [self.handover(4, 6), late, self.handover(7, 8)]
        assert delivered_handovers(waiting, now=0.0) == waiting[:1]
        assert delivered_handovers(waiting[1:], now=0.0) == []

    def test_an_error_of_a_letter_does_not_hold_up_what_is_before_it(self) -> None:
        def refuse() -> Future[Delivery]:
            failed = Future[Delivery]()
            failed.set_exception(FatalLogError("not authorised"))
            return failed

        refused = Handover(0, 1, Delta(6, 9), (DeadLetterDelivery(Letter(refuse)),), letter_offsets=(7,))
        assert delivered_handovers([self.handover(4, 6), refused], now=0.0) == [self.handover(4, 6)]
        with pytest.raises(FatalLogError, match="not authorised"):
            delivered_handovers([refused], now=0.0)

    def test_the_part_before_an_undelivered_letter_can_be_told_apart(self) -> None:
        delivered = Future[Delivery]()
        delivered.set_result(Delivery("letters", 0, 0, 1))
        letters = (DeadLetterDelivery(Letter(lambda: delivered)), DeadLetterDelivery(Letter(Future)))
        changes = tuple(RemovedContent(str(offset), offset) for offset in (4, 6, 8))
        handover = Handover(0, 1, Delta(4, 9, changes), letters, letter_offsets=(5, 7))
        before = delta_before_letters(handover, now=0.0)
        assert before == Delta(4, 7, changes[:2])

    def test_all_dead_letters_of_a_handover_are_tried_again_together(self) -> None:
        attempts = [0, 0]

        def attempt(number: int) -> Future[Delivery]:
            attempts[number] += 1
            failed = Future[Delivery]()
            failed.set_exception(TransientLogError("away"))
            return failed

        letters = tuple(DeadLetterDelivery(Letter(partial(attempt, number))) for number in range(2))
        waiting = [Handover(0, 1, Delta(6, 8), letters)]
        for now in (0.0, 100.0):
            assert delivered_handovers(waiting, now) == []
        assert attempts == [2, 2]
