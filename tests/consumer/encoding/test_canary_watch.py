"""A consumer whose encoder has drifted is not ready, and says how far; it goes on encoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from clip_index.errors import DamagedIndexFile
from clip_index.indexes.canaries import read_canaries
from clip_index.indexes.index_directory import IndexDirectory
from consumer.errors import ConsumerFault
from consumer.health import HealthCheck
from fakes.drifting_encoder import DriftingEncoder
from fakes.hash_encoder import HashEncoder
from tests.consumer.encoders import CountingEncoder
from tests.consumer.running import World, eventually, upload

DRIFTED = "texts 1.0000, pictures 0.9000; at least 0.999 is expected"


@pytest.fixture
def watched(world: World) -> World:
    world.set_options(canary_seconds=3600.0)
    return world


def cosine(world: World, modality: str) -> float | None:
    value: float | None = world.metrics.registry.get_sample_value(
        "cliptide_consumer_canary_cosine", {"modality": modality}
    )
    return value


def has_drifted(world: World) -> float | None:
    value: float | None = world.metrics.registry.get_sample_value("cliptide_consumer_encoder_drifted")
    return value


def canaries_of(world: World) -> Path:
    return IndexDirectory.open(world.root, "main").path / "canaries.json"


def test_the_first_consumer_keeps_canaries_and_is_ready(watched: World) -> None:
    with watched.running() as pipeline:
        watched.wait_committed(watched.publish(upload("a")))
        assert HealthCheck(pipeline, 60.0).is_ready()
    kept = read_canaries(IndexDirectory.open(watched.root, "main").store)
    assert kept is not None
    assert cosine(watched, "text") == pytest.approx(1.0)
    assert cosine(watched, "image") == pytest.approx(1.0)
    assert has_drifted(watched) == 0


def test_a_drifted_encoder_makes_readiness_red_with_both_cosines_and_goes_on(watched: World) -> None:
    with watched.running():
        pass
    watched.encoder = DriftingEncoder(0.9)
    with capture_logs() as lines, watched.running() as pipeline:
        watched.wait_committed(watched.publish(upload("a")))
        health = HealthCheck(pipeline, 60.0).look()
        assert health.not_live == []
        [problem] = health.not_ready
        assert DRIFTED in problem
    [told] = [line for line in lines if line["event"] == "encoder drifted"]
    assert told["made_with"] == told["runs_with"]
    assert cosine(watched, "image") == pytest.approx(0.9, abs=1e-5)
    assert has_drifted(watched) == 1


def test_an_encoder_that_drifts_while_it_runs_is_noticed_and_so_is_its_recovery(world: World) -> None:
    world.set_options(canary_seconds=0.02)
    world.encoder = encoder = DriftingEncoder()
    with capture_logs() as lines, world.running() as pipeline:
        check = HealthCheck(pipeline, 60.0)
        eventually(check.is_ready)
        encoder.cosine = 0.9
        eventually(lambda: any(DRIFTED in problem for problem in check.look().not_ready))
        encoder.cosine = 1.0
        eventually(check.is_ready)
    events = [line["event"] for line in lines if line["event"].startswith("encoder ")]
    assert events == ["encoder drifted", "encoder is as before"]


def test_an_index_of_an_earlier_release_gets_canaries_from_its_next_consumer(watched: World) -> None:
    with watched.running():
        watched.wait_committed(watched.publish(upload("a")))
    canaries_of(watched).unlink()
    with watched.running() as pipeline:
        eventually(HealthCheck(pipeline, 60.0).is_ready)
    assert canaries_of(watched).exists()


def test_removing_the_file_accepts_the_encoder_as_it_is(watched: World) -> None:
    with watched.running():
        pass
    canaries_of(watched).unlink()
    watched.encoder = DriftingEncoder(0.9)
    with watched.running() as pipeline:
        eventually(HealthCheck(pipeline, 60.0).is_ready)
        assert has_drifted(watched) == 0


def test_damaged_canaries_keep_a_consumer_from_starting_and_say_what_to_do(watched: World) -> None:
    with watched.running():
        pass
    canaries_of(watched).unlink()
    canaries_of(watched).write_bytes(b"{}")
    with pytest.raises(DamagedIndexFile, match="remove the file, and the next consumer writes it anew"):
        watched.build()


@dataclass
class FailsLater(CountingEncoder):
    """Encodes at the start and never again."""

    def encode(self, prepared):  # type: ignore[no-untyped-def]
        if self.num_calls >= 2:
            raise RuntimeError("the card has fallen off the bus")
        return super().encode(prepared)


def test_canaries_that_can_no_longer_be_encoded_end_the_consumer_as_contents_would(world: World) -> None:
    world.set_options(canary_seconds=0.02)
    world.encoder = FailsLater(HashEncoder())
    failure = world.failure()
    assert isinstance(failure, ConsumerFault)
    assert "encoding the index's canaries failed: RuntimeError: the card has fallen" in str(failure)
