"""Consumers share a topic, join, leave, die and stall. No content is lost or doubled."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from clip_index.writing.merge_policy import MergeSettings
from tests.integration.fleet import Fleet, Member
from tests.integration.history import History

pytestmark = pytest.mark.timeout(int(os.environ.get("TESTS_FLEET_TIMEOUT_SECONDS", "300")))

MERGE_FACTOR = MergeSettings().merge_factor


def test_members_join_and_leave_and_nothing_is_encoded_twice(lasting_fleet: Fleet, history: History) -> None:
    first, second = lasting_fleet.start(), lasting_fleet.start()
    history.publish(150)
    lasting_fleet.wait_for_owners(first, second)
    late = lasting_fleet.start()
    history.publish(150)
    lasting_fleet.wait_for_owners(first, second, late)
    history.publish(150)
    assert second.stop() == 0
    lasting_fleet.wait_for_owners(first, late)
    history.publish(150)
    history.wait_until_indexed(lasting_fleet)
    assert [first.stop(), late.stop()] == [0, 0]
    assert lasting_fleet.num_encoded == history.num_uploads


@pytest.mark.kafka
def test_a_rolling_restart_encodes_nothing_again(kafka_fleet: Fleet, history: History) -> None:
    members = [kafka_fleet.start() for _ in range(3)]
    history.publish(100)
    kafka_fleet.wait_for_owners(*members)
    for number in range(3):
        history.publish(100)
        assert members[number].stop() == 0
        members[number] = kafka_fleet.start()
        kafka_fleet.wait_for_owners(*members)
    history.wait_until_indexed(kafka_fleet)
    assert [member.stop() for member in members] == [0, 0, 0]
    assert kafka_fleet.num_encoded == history.num_uploads


@pytest.mark.kafka
def test_a_static_member_that_restarts_keeps_its_partitions(kafka_fleet: Fleet, history: History) -> None:
    first, second = kafka_fleet.start_static("a"), kafka_fleet.start_static("b")
    kafka_fleet.wait_for_owners(first, second)
    num_revokes = second.said.count("revoked")
    history.publish(100)
    assert first.stop() == 0
    again = kafka_fleet.start_static("a")
    kafka_fleet.wait_for_owners(again, second)
    history.wait_until_indexed(kafka_fleet)
    assert second.said.count("revoked") == num_revokes
    assert [again.stop(), second.stop()] == [0, 0]
    assert kafka_fleet.num_encoded == history.num_uploads


def test_what_a_killed_member_left_is_taken_over(fleet: Fleet, history: History) -> None:
    members = [fleet.start() for _ in range(3)]
    fleet.wait_for_owners(*members)
    history.publish(300)
    assert members[1].stop(signal.SIGKILL) == -signal.SIGKILL
    history.publish(100)
    history.wait_until_indexed(fleet)
    fleet.wait_for_owners(members[0], members[2])


def test_a_consumer_that_is_stopped_while_it_joins_holds_up_nobody(fleet: Fleet, history: History) -> None:
    stopped = fleet.start()
    fleet.wait(lambda: stopped.told("consuming") is not None)
    assert stopped.stop() == 0
    history.publish(100)
    member = fleet.start()
    history.wait_until_indexed(fleet)
    fleet.wait_for_owners(member)


def test_a_revoke_waits_for_the_batch_that_is_being_encoded(lasting_fleet: Fleet, history: History) -> None:
    lasting_fleet.hold.touch()
    busy = lasting_fleet.start(is_held=True, TESTS_RELEASE_SECONDS="120")
    history.publish(100)
    lasting_fleet.wait(lambda: lasting_fleet.is_waiting_to_encode)
    joining = lasting_fleet.start()
    lasting_fleet.wait(lambda: busy.told("settling") is not None)
    assert busy.told("partitions revoked") is None
    lasting_fleet.hold.unlink()
    lasting_fleet.wait_for_owners(busy, joining)
    history.wait_until_indexed(lasting_fleet)
    assert lasting_fleet.num_encoded == history.num_uploads


@pytest.mark.kafka
def test_a_batch_that_takes_too_long_is_left_to_the_next_owner(kafka_fleet: Fleet, history: History) -> None:
    kafka_fleet.hold.touch()
    stuck = kafka_fleet.start(is_held=True)
    history.publish(100)
    kafka_fleet.wait(lambda: kafka_fleet.is_waiting_to_encode)
    joining = kafka_fleet.start()
    kafka_fleet.wait_for_owners(stuck, joining)
    kafka_fleet.hold.unlink()
    history.publish(100)
    history.wait_until_indexed(kafka_fleet)


@pytest.mark.kafka
def test_a_revoke_ends_a_merge_and_the_next_owner_merges(kafka_fleet: Fleet, history: History) -> None:
    merging = kafka_fleet.start(CLIPTIDE_CONSUMER__COMMIT_INTERVAL_SECONDS="0.01")
    while kafka_fleet.largest_num_segments() <= MERGE_FACTOR + 4:  # merges would keep the number below
        history.publish(20)
        history.wait_until_covered(kafka_fleet)
        _stop_merges(merging)
    joining = kafka_fleet.start(CLIPTIDE_CONSUMER__COMMIT_INTERVAL_SECONDS="0.01")
    kafka_fleet.wait_for_owners(merging, joining)
    assert merging.stop() == 0
    kafka_fleet.wait_for_owners(joining)
    history.publish(100)
    history.wait_until_indexed(kafka_fleet)
    kafka_fleet.wait(lambda: kafka_fleet.largest_num_segments() <= MERGE_FACTOR)
    history.wait_until_indexed(kafka_fleet)
    assert joining.stop() == 0
    assert kafka_fleet.num_encoded == history.num_uploads


def test_a_stalled_member_comes_back_to_shards_that_are_no_longer_its_own(
    fleet: Fleet, history: History
) -> None:
    fleet.hold.touch()
    stalled = fleet.start(is_held=True)
    history.publish(100)
    fleet.wait(lambda: fleet.is_waiting_to_encode)
    stalled.send(signal.SIGSTOP)
    other = fleet.start()
    fleet.wait_for_owners(other)
    history.publish(100)
    history.wait_until_indexed(fleet)
    fleet.hold.unlink()
    stalled.send(signal.SIGCONT)
    fleet.wait_for_owners(stalled, other)
    history.publish(100)
    history.wait_until_indexed(fleet)
    assert "lost" in stalled.said or "fenced" in stalled.said
    assert [stalled.stop(), other.stop()] == [0, 0]


@pytest.mark.kafka
def test_the_index_is_the_fold_after_many_forced_rebalances(kafka_fleet: Fleet, history: History) -> None:
    """Each guest joins and leaves, which makes two rebalances. `make fleet-long` runs more of them."""
    members = [kafka_fleet.start(), kafka_fleet.start()]
    kafka_fleet.wait_for_owners(*members)
    num_guests = int(os.environ.get("TESTS_FLEET_REBALANCES", "20")) // 2
    for _ in range(num_guests):
        history.publish(60)
        with kafka_fleet.guest():
            kafka_fleet.wait(lambda: kafka_fleet.owners()[os.getpid()] > 0)
            history.publish(60)
        kafka_fleet.wait_for_owners(*members)
    history.wait_until_indexed(kafka_fleet)
    assert [member.stop() for member in members] == [0, 0]
    assert kafka_fleet.num_encoded == history.num_uploads
    assert kafka_fleet.sum_of_epochs() >= 2 * num_guests


def _stop_merges(member: Member) -> None:
    """Suspend the processes that merge for a member, so that their merges never end."""
    for pid in member.children():
        with suppress(FileNotFoundError, ProcessLookupError):  # the process has ended meanwhile
            if _is_merging(pid):
                os.kill(pid, signal.SIGSTOP)


def _is_merging(pid: int) -> bool:
    return b"merge_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
