"""A consumer whose index lies in a bucket: on one machine, on another one after it, and when it is killed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.buckets.object_bucket import ObjectBucket
from clip_index.storage.shard_store import StoreUnreachable
from consumer.errors import ConsumerFault
from consumer.quarantine.inflight import InFlight, InFlightFile, read_inflight
from consumer.settings import ConsumerSettings, IndexSettings, Settings
from consumer.starting.options_from_settings import options_from_settings
from fakes.hash_encoder import HashEncoder
from fakes.object_stores import memory_bucket, object_store
from schemas.events import TextContent
from tests.consumer.encoders import FailingEncoder
from tests.consumer.running import TOPIC, World, upload

SHARED = f"indexes/main/{TOPIC}-0/inflight.json"


@pytest.fixture
def bucket() -> ObjectBucket:
    return memory_bucket()


@pytest.fixture
def world(bucket: ObjectBucket, tmp_path: Path) -> World:
    return World(object_store(bucket, "", tmp_path / "one"))


def move(world: World, bucket: ObjectBucket, tmp_path: Path, machine: str) -> None:
    """Let the next consumer run on another machine, which has no files yet."""
    world.root = object_store(bucket, "", tmp_path / machine)


def test_what_is_uploaded_is_found_and_another_machine_goes_on(
    world: World, bucket: ObjectBucket, tmp_path: Path
) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    move(world, bucket, tmp_path, "two")
    with world.running():
        world.wait_committed(world.publish(upload("b")))
    searcher = world.searcher()
    assert searcher.find("a") is not None
    assert searcher.find("b") is not None
    assert world.group_offset() == 2


def test_what_is_in_flight_is_kept_on_the_machine_alone_while_nothing_dies(
    world: World, bucket: ObjectBucket
) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
        assert read_inflight(world.shard_path() / "inflight.json").next_offset == 1
        with pytest.raises(FileNotFoundError):
            bucket.get(SHARED)
    assert not (world.shard_path() / "inflight.json").exists()


def test_deaths_count_wherever_the_partition_goes(world: World, bucket: ObjectBucket, tmp_path: Path) -> None:
    """The first death is noticed where it happened. From then on each machine knows what was alone."""
    world.encoder = FailingEncoder()
    world.publish(upload("good"))
    world.publish(upload("bad", TextContent("poison")))
    assert isinstance(world.failure(), ConsumerFault)
    assert isinstance(world.failure(), ConsumerFault), "the first one alone"
    for machine in ("two", "three"):
        move(world, bucket, tmp_path, machine)
        assert isinstance(world.failure(), ConsumerFault)
    move(world, bucket, tmp_path, "four")
    with world.running():
        world.wait_committed(2)
    assert world.reasons() == ["kills_process"]
    assert world.searcher().find("good") is not None
    with pytest.raises(FileNotFoundError):
        bucket.get(SHARED)


def test_a_store_that_fails_in_quarantine_is_waited_for_and_counts_no_death(
    world: World, bucket: ObjectBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.encoder = FailingEncoder()
    world.publish(upload("bad", TextContent("poison")))
    assert isinstance(world.failure(), ConsumerFault)
    world.encoder = HashEncoder()
    failures = iter([StoreUnreachable(errno.EHOSTUNREACH, "away")] * 3)
    put = ObjectBucket.put

    def failing_put(self: ObjectBucket, key: str, data: bytes) -> None:
        if key == SHARED and (failure := next(failures, None)):
            raise failure
        put(self, key, data)

    monkeypatch.setattr(ObjectBucket, "put", failing_put)
    with world.running():
        world.wait_committed(1)
    assert world.reasons() == []


class Shared:
    """Implements `SharedInFlight` in memory."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def read(self) -> bytes:
        if self.data is None:
            raise FileNotFoundError
        return self.data

    def write(self, data: bytes) -> None:
        self.data = data

    def remove(self) -> None:
        self.data = None


def test_one_death_counts_once_even_if_the_start_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Shared()
    InFlightFile(tmp_path / "inflight.json", InFlight(3), shared=shared).mark_alone(1)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr("consumer.quarantine.inflight.replace_file", fail)
        with pytest.raises(OSError, match="full"):
            InFlightFile.recover(tmp_path, 1, shared)
    assert InFlightFile.recover(tmp_path, 1, shared).state.deaths == {1: 1}


def test_what_a_machine_remembers_of_an_earlier_time_blames_no_record(tmp_path: Path) -> None:
    """The partition was here, went away while a record was alone, and came back after a clean end."""
    shared = Shared()
    earlier = InFlightFile(tmp_path / "inflight.json", InFlight(3), shared=shared)
    earlier.mark_alone(1)
    earlier.close()
    shared.remove()
    recovered = InFlightFile.recover(tmp_path, 3, shared)
    assert recovered.state.deaths == {}
    assert list(recovered.suspects) == []
    assert shared.data is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"next_offset": "x"}'])
def test_a_shared_file_that_cannot_be_read_names_no_suspects(tmp_path: Path, data: bytes) -> None:
    shared = Shared()
    shared.write(data)
    assert list(InFlightFile.recover(tmp_path, 0, shared).suspects) == []


def test_a_bucket_has_its_own_defaults_because_requests_cost_money() -> None:
    on_disk = options_from_settings(Settings())
    in_bucket = options_from_settings(Settings(index=IndexSettings(root="s3://bucket/index")))
    assert (on_disk.commits.interval_seconds, on_disk.commits.watermark_every_seconds) == (0.05, 1.0)
    assert (in_bucket.commits.interval_seconds, in_bucket.commits.watermark_every_seconds) == (1.0, 10.0)
    assert in_bucket.writer.collect_every_seconds > on_disk.writer.collect_every_seconds
    chosen = Settings(
        index=IndexSettings(root="s3://bucket/index"), consumer=ConsumerSettings(commit_interval_seconds=0.3)
    )
    assert options_from_settings(chosen).commits.interval_seconds == 0.3


def test_the_index_and_its_in_flight_file_have_different_homes(world: World, tmp_path: Path) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    assert IndexDirectory.open(world.root).shard_path(0).is_relative_to(tmp_path / "one" / "local")
