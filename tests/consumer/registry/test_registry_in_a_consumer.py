"""A whole consumer reads records that a registry's serializers framed, and waits for the registry."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.backoff import Backoff
from consumer.registry.fetching import RegistryPatience
from event_log.errors import RegistryRefused, RegistryUnavailable
from event_log.schema_registry.client import FetchedSchema, RegistryClient
from event_log.schema_registry.settings import RegistrySettings
from schemas.avro.format import current_schema
from schemas.codec import encode_event_framed
from tests.consumer.running import TOPIC, World, eventually, upload
from tests.registry.apicurio import Apicurio

SCHEMA_FILE = Path(__file__).parents[3] / "schemas" / "upload_event.avsc"
OURS = json.dumps(current_schema().parsed)
UNAVAILABLE = RegistryUnavailable("schema registry http://registry does not answer")
QUICK = RegistryPatience(Backoff(first_seconds=0.01, longest_seconds=0.02))


class FakeRegistry:
    """Answers from `schemas`, or raises `error` as long as it is set."""

    address = "http://registry"

    def __init__(self, schemas: dict[object, FetchedSchema | None]) -> None:
        self.schemas = schemas
        self.error: Exception | None = None
        self.asked: list[object] = []

    def fetch(self, key: object) -> FetchedSchema | None:
        self.asked.append(key)
        if self.error is not None:
            raise self.error
        return self.schemas.get(key)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry({7: FetchedSchema("AVRO", OURS)})


def world_of(root: Path, registry: object, num_partitions: int = 1) -> World:
    world = World(root, num_partitions=num_partitions, registry=registry)  # type: ignore[arg-type]
    world.set_options(registry=QUICK)
    return world


def framed(world: World, content_id: str, schema: int = 7, partition: int = 0) -> int:
    record = encode_event_framed(upload(content_id), schema)
    return world.append(record.key, record.value, partition)


def test_framed_records_are_indexed_and_their_schema_is_fetched_once(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    world = world_of(tmp_path, registry)
    ends = [framed(world, f"shoe-{number}") for number in range(20)]
    with world.running():
        world.wait_committed(ends[-1])
    assert world.reasons() == []
    assert world.searcher().find("shoe-19") is not None
    assert registry.asked == [7]


def test_a_replay_works_while_the_registry_is_away(tmp_path: Path, registry: FakeRegistry) -> None:
    world = world_of(tmp_path, registry)
    with world.running():
        world.wait_committed(framed(world, "before"))
    registry.error = UNAVAILABLE
    with world.running():
        world.wait_committed(framed(world, "after"))
    assert registry.asked == [7]


@pytest.mark.parametrize(
    "error",
    [UNAVAILABLE, RegistryRefused("schema registry http://registry answers 401")],
    ids=["away", "401"],
)
def test_a_partition_waits_for_the_registry_by_name_and_the_others_go_on(
    tmp_path: Path, registry: FakeRegistry, error: Exception
) -> None:
    world = world_of(tmp_path, registry, num_partitions=2)
    registry.error = error
    end = framed(world, "framed")
    with capture_logs() as lines, world.running() as pipeline:
        eventually(lambda: len(pipeline.waiting_partitions) == 1)
        world.wait_committed(world.publish(upload("other"), 1), 1)
        [reason] = pipeline.waiting_partitions
        [outage] = pipeline.outages
        registry.error = None
        world.wait_committed(end)
        eventually(lambda: not pipeline.outages and not pipeline.waiting_partitions)
    assert f"{TOPIC}-0@0 needs schema id 7: {error}" in reason
    assert str(error) in outage
    assert [line["place"] for line in lines if line["event"] == "waiting"] == ["schema_registry"]
    assert world.reasons() == []


def test_an_unknown_id_is_a_dead_letter_and_asked_for_once(tmp_path: Path, registry: FakeRegistry) -> None:
    world = world_of(tmp_path, registry)
    ends = [framed(world, f"shoe-{number}", schema=8) for number in range(5)]
    with world.running():
        world.wait_committed(ends[-1])
    assert world.reasons() == ["unknown_schema"] * 5
    assert registry.asked == [8]


def test_a_schema_that_cannot_be_resolved_is_a_dead_letter(tmp_path: Path, registry: FakeRegistry) -> None:
    world = world_of(tmp_path, registry)
    registry.schemas[7] = FetchedSchema("AVRO", '{"type": "record", "name": "Other", "fields": []}')
    with world.running():
        world.wait_committed(framed(world, "shoe-1"))
    assert world.reasons() == ["incompatible_schema"]


def test_a_stop_does_not_wait_for_the_registry(tmp_path: Path, registry: FakeRegistry) -> None:
    world = world_of(tmp_path, registry)
    registry.error = UNAVAILABLE
    framed(world, "framed")
    with world.running() as pipeline:
        eventually(lambda: len(pipeline.waiting_partitions) == 1)
    assert world.next_offset() == 0


def test_a_disk_that_keeps_no_schema_holds_no_record(tmp_path: Path, registry: FakeRegistry) -> None:
    world = world_of(tmp_path, registry)
    (tmp_path / "registry-schemas").write_text("a file where the folder should be")
    with world.running():
        world.wait_committed(framed(world, "shoe-1"))
    assert world.searcher().find("shoe-1") is not None


def test_a_suspect_in_quarantine_waits_for_its_schema_as_well(tmp_path: Path, registry: FakeRegistry) -> None:
    world = world_of(tmp_path, registry)
    with world.running():
        world.wait_committed(world.publish(upload("first")))
    end = framed(world, "shoe-1")
    inflight = world.shard_path() / "inflight.json"
    inflight.write_text(json.dumps({"format": 1, "offsets": [1], "deaths": {}}))
    registry.error = UNAVAILABLE
    with world.running() as pipeline:
        eventually(lambda: len(pipeline.waiting_partitions) == 1)
        registry.error = None
        world.wait_committed(end)


def test_records_framed_with_ids_of_apicurio_are_indexed(tmp_path: Path, apicurio: Apicurio) -> None:
    with closing(RegistryClient(RegistrySettings(apicurio.url))) as client:
        keys = client.register(f"{TOPIC}-value", SCHEMA_FILE.read_text())
        world = world_of(tmp_path, client)
        with world.running():
            world.wait_committed(framed(world, "shoe-1", schema=keys.number))
    assert world.reasons() == []
    assert world.searcher().find("shoe-1") is not None
