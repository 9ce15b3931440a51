"""Decisions that take values and a time, and touch nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_index.content import ContentFacts, Delta, EncodedContent, RemovedContent
from consumer.backlog.backlog import Backlog, BacklogLimits
from consumer.backlog.lane import Lane
from consumer.backoff import Backoff
from consumer.dead_letters.dead_letter import DeadLetterDelivery, DeadLetters, SetAside
from consumer.dead_letters.dead_letter_limit import DeadLetterLimit, FloodThreshold
from consumer.encoding.batcher import Batcher, BatchLimits
from consumer.errors import DeadLetterFlood, StartRefused
from consumer.intake.dispatcher import grouped
from consumer.intake.log_ends import LogEnds
from consumer.intake.start_check import StartNumbers, StartOptions, check_start
from consumer.quarantine.inflight import InFlight, InFlightFile
from consumer.work import WORK_BYTES, Handover, NothingThere, Work
from consumer.writing.handovers import Handled, build_handovers, delivered_handovers, joined_delta
from consumer.writing.owned_shard import CommitPolicy
from consumer.writing.watermark import WatermarkClock
from event_log.errors import TransientLogError
from event_log.memory.clients import MemoryLog, MemoryPublisher
from event_log.records import Delivery, EndOfPartition, Headers, LogRange, Record


def record(offset: int, *, epoch: int = 1, partition: int = 0, size: int = 10) -> Record:
    return Record("uploads", partition, offset, b"k", b"v" * (size - 1), (), 1000 + offset, epoch)


def lane(tmp_path: Path, *, next_offset: int = 0, suspects_below: int = 0) -> Lane:
    inflight = InFlightFile(tmp_path / "inflight.json", InFlight(suspects_below))
    return Lane(0, 1, next_offset, inflight, suspects_below)


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


class TestDeadLetterLimit:
    def test_few_dead_letters_are_no_flood_whatever_their_share(self) -> None:
        limit = DeadLetterLimit(FloodThreshold(max_share=0.1, min_dead_letters=10, window=100))
        for _ in range(9):
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
        for _ in range(50):
            limit.set_aside("x") if _ < 4 else limit.passed()
        for _ in range(4):
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


class TestLane:
    def test_works_cover_the_log_without_a_hole(self, tmp_path: Path) -> None:
        one = lane(tmp_path, next_offset=3)
        for received in (record(3), record(7), EndOfPartition(0, 10, 1)):
            one.receive(received, 0)
        assert [(work.from_offset, work.next_offset) for work in one.works] == [(3, 4), (4, 8), (8, 10)]
        assert [work.size_bytes for work in one.works] == [10, 10, 0]

    def test_headers_weigh_as_much_as_values(self, tmp_path: Path) -> None:
        one = lane(tmp_path)
        one.receive(replace(record(0), headers=(("trace", b"t" * 90), ("empty", None))), 0)
        assert one.works[0].size_bytes == 10 + 5 + 90 + 5

    @pytest.mark.parametrize(
        "received",
        [
            pytest.param(record(5, epoch=0), id="an older assignment"),
            pytest.param(record(1), id="an offset already here"),
            pytest.param(EndOfPartition(0, 2, 1), id="an end without a gap"),
        ],
    )
    def test_what_is_stale_is_dropped(self, tmp_path: Path, received: Record | EndOfPartition) -> None:
        assert lane(tmp_path, next_offset=2).receive(received, 0) is None

    def test_suspects_go_one_at_a_time_and_the_rest_together(self, tmp_path: Path) -> None:
        one = lane(tmp_path, suspects_below=2)
        for offset in range(5):
            one.receive(record(offset), offset)
        sizes = []
        while works := one.submittable(10):
            sizes.append(len(works))
            one.submitted(len(works))
            assert not any(one.is_suspect(work) for work in one.submittable(10))
            for work in works:
                work.outcome = NothingThere()
                assert one.take(1) == [work]
        assert sizes == [1, 1, 3]

    def test_the_window_bounds_what_is_under_way(self, tmp_path: Path) -> None:
        one = lane(tmp_path)
        for offset in range(9):
            one.receive(record(offset), offset)
        one.submitted(len(one.submittable(4)))
        assert one.submittable(4) == []
        assert len(one.submittable(6)) == 2


class TestWork:
    def work(self) -> Work:
        return Work(0, 1, 4, 5, record(4), 0, 10)

    def test_it_is_ready_with_an_outcome_or_an_error(self) -> None:
        good, bad, open_ = self.work(), self.work(), self.work()
        good.outcome, bad.error = NothingThere(), RuntimeError("a defect")
        assert [work.is_ready for work in (good, bad, open_)] == [True, True, False]
        assert good.settled() == NothingThere()
        with pytest.raises(RuntimeError, match="a defect"):
            bad.settled()

    @pytest.mark.parametrize("is_early", [True, False], ids=["cancelled before", "cancelled after"])
    def test_cancelling_cancels_the_fetch(self, is_early: bool) -> None:
        work, fetching = self.work(), Future[bytes]()
        if is_early:
            work.cancel()
        work.fetch(fetching)
        work.cancel()
        assert fetching.cancelled()


class TestGroups:
    def works(self, *sizes: int) -> list[Work]:
        return [
            Work(0, 1, offset, offset + 1, record(offset, size=size), offset, size)
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
        works = self.works(*sizes)
        groups = list(grouped(works))
        assert [len(group) for group in groups] == expected
        assert [work for group in groups for work in group] == works


def submit_all(backlog: Backlog) -> dict[int, list[Work]]:
    """Say that everything is under way; return the works by partition."""
    submitted: dict[int, list[Work]] = {}
    for lane, works in backlog.submittable():
        backlog.submitted(lane, len(works))
        submitted[lane.partition] = works
    return submitted


def settle_all(works: Iterable[Work]) -> None:
    for work in works:
        work.outcome = NothingThere()


class TestBacklog:
    def backlog(self, tmp_path: Path, *, max_bytes: int = 100) -> Backlog:
        backlog = Backlog(BacklogLimits(max_bytes=max_bytes))
        for partition in (0, 1):
            backlog.open(partition, 1, 0, InFlightFile(tmp_path / f"{partition}.json", InFlight()))
        return backlog

    def test_works_are_taken_in_order_of_arrival_across_partitions(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.receive([record(0), record(0, partition=1), record(1), record(1, partition=1)])
        settle_all(chain(*submit_all(backlog).values()))
        taken = backlog.take(10, 0.0)
        assert [(work.partition, work.from_offset) for work in taken] == [(0, 0), (1, 0), (0, 1), (1, 1)]

    def test_no_more_works_are_taken_than_asked_for(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        received = [record(0), record(1), record(0, partition=1), record(2), record(1, partition=1)]
        backlog.receive(received)
        settle_all(chain(*submit_all(backlog).values()))
        taken = [backlog.take(2, 0.0) for _ in range(4)]
        assert [len(works) for works in taken] == [2, 2, 1, 0]
        assert [work.record for works in taken for work in works] == received
        assert backlog.size_bytes == 0
        assert not backlog.is_under_way

    def test_settled_works_wake_the_one_who_takes(self, tmp_path: Path) -> None:
        backlog, taken = self.backlog(tmp_path), list[Work]()
        backlog.receive([record(0)])
        works = submit_all(backlog)[0]
        taker = threading.Thread(target=lambda: taken.extend(backlog.take(1, 60.0)))
        taker.start()
        settle_all(works)
        backlog.notify()
        taker.join(60.0)
        assert taken == works

    def test_a_work_that_is_not_ready_holds_back_its_partition_alone(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.receive([record(0), record(1), record(0, partition=1)])
        works = submit_all(backlog)
        settle_all([works[0][1], *works[1]])
        assert [work.partition for work in backlog.take(10, 0.0)] == [1]
        settle_all([works[0][0]])
        assert [work.from_offset for work in backlog.take(10, 0.0)] == [0, 1]

    def test_a_partition_is_paused_once_and_resumed_when_half_is_free(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path, max_bytes=2 * 5 * (10 + WORK_BYTES))
        backlog.receive([record(offset, size=10) for offset in range(5)])
        assert backlog.flow_change().pause == {0}
        assert backlog.flow_change().pause == frozenset()
        settle_all(chain(*submit_all(backlog).values()))
        backlog.take(2, 0.0)
        assert backlog.flow_change().resume == frozenset()
        backlog.take(1, 0.0)
        assert backlog.flow_change().resume == {0}

    def test_many_small_records_fill_a_buffer_by_what_they_take_in_memory(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path, max_bytes=2 * 100_000)
        backlog.receive([record(offset, size=1) for offset in range(250)])
        assert backlog.flow_change().pause == {0}

    def test_headers_fill_a_buffer_too(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path, max_bytes=2 * 100_000)
        backlog.receive([replace(record(0), headers=(("trace", bytes(100_000)), ("none", None)))])
        assert backlog.flow_change().pause == {0}

    def test_closing_cancels_what_is_under_way(self, tmp_path: Path) -> None:
        backlog = self.backlog(tmp_path)
        backlog.receive([record(0)])
        (work,) = submit_all(backlog)[0]
        fetching = Future[bytes]()
        work.fetch(fetching)
        backlog.close(0)
        assert work.is_cancelled
        assert fetching.cancelled()
        assert backlog.partitions == [1]


class TestHandovers:
    def work(self, offset: int, partition: int = 0, epoch: int = 1) -> Work:
        return Work(partition, epoch, offset, offset + 1, record(offset, partition=partition), offset, 10)

    def test_one_delta_for_each_partition_and_assignment(self) -> None:
        batch = [
            Handled(self.work(4), RemovedContent("a", 4)),
            Handled(self.work(9, partition=1)),
            Handled(self.work(5)),
            Handled(self.work(0, epoch=2)),
        ]
        handovers = build_handovers(batch)
        ranges = [
            (one.partition, one.assignment_epoch, one.delta.from_offset, one.delta.next_offset)
            for one in handovers
        ]
        assert ranges == [(0, 1, 4, 6), (1, 1, 9, 10), (0, 2, 0, 1)]
        assert handovers[0].delta.changes == (RemovedContent("a", 4),)
        assert handovers[0].timestamps_ms == (1004, 1005)

    def test_a_handover_weighs_its_changes_and_the_records_of_its_dead_letters(self) -> None:
        letter = DeadLetterDelivery(whole=Future, without_value=Future)
        vectors = np.zeros((4, 8), np.float32)
        facts = ContentFacts(source="tests", occurred_at_ms=0, text="w" * 1000)
        content = EncodedContent("a", 4, "text", vectors, facts)
        (light,) = build_handovers([Handled(self.work(4))])
        (content_only,) = build_handovers([Handled(self.work(4), content)])
        (both,) = build_handovers([Handled(self.work(4), content), Handled(self.work(5), dead_letter=letter)])
        assert light.size_bytes > 0
        assert content_only.size_bytes >= vectors.nbytes + 1000
        assert both.size_bytes == content_only.size_bytes + light.size_bytes + self.work(5).held_bytes

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
        letter = DeadLetterDelivery(whole=Future, without_value=Future)
        late = Handover(0, 1, Delta(6, 7), (letter,))
        waiting = [self.handover(4, 6), late, self.handover(7, 8)]
        assert delivered_handovers(waiting, now=0.0) == waiting[:1]
        assert delivered_handovers(waiting[1:], now=0.0) == []

    def test_all_dead_letters_of_a_handover_are_tried_again_together(self) -> None:
        attempts = [0, 0]

        def attempt(number: int) -> Future[Delivery]:
            attempts[number] += 1
            failed = Future[Delivery]()
            failed.set_exception(TransientLogError("away"))
            return failed

        letters = tuple(
            DeadLetterDelivery(whole=partial(attempt, number), without_value=Future) for number in range(2)
        )
        waiting = [Handover(0, 1, Delta(6, 8), letters)]
        for now in (0.0, 100.0):
            assert delivered_handovers(waiting, now) == []
        assert attempts == [2, 2]


class WaitingPublisher(MemoryPublisher):
    """Its queue is full, and its broker away."""

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        raise AssertionError("a thread of the consumer would wait here")


def test_no_thread_waits_until_a_dead_letter_has_room() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    letters = DeadLetters(WaitingPublisher(log), "letters", connector="main", worker_id="w")
    delivery = letters.send(record(4), SetAside("undecodable", "no JSON", "decode", "BadEvent"))
    assert delivery.is_delivered(0.0)


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

    @given(st.lists(st.tuples(st.integers(0, 10_000), st.none() | st.integers(0, 10_000))))
    def test_it_never_goes_back(self, steps: list[tuple[int, int | None]]) -> None:
        clock, last = WatermarkClock(100), -1_000_000
        for timestamp, caught_up_at in steps:
            clock.covered(timestamp, now_ms=9_000)
            moved = clock.advance(caught_up_at_ms=caught_up_at)
            assert moved is None or moved > last
            last = moved if moved is not None else last


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


def test_backoff_doubles_up_to_its_longest() -> None:
    backoff = Backoff(first_seconds=0.5, longest_seconds=3.0)
    assert [backoff.seconds(n) for n in (1, 2, 3, 4, 1000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_commits_stretch_while_merging_falls_behind() -> None:
    policy = CommitPolicy(interval_seconds=0.2)
    assert [policy.interval(debt) for debt in (-1, 0, 4, 1000)] == [0.2, 0.2, 1.0, 5.0]
