"""A query service whose encoder does not fit the index's is not ready, and says how far it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from structlog.testing import capture_logs

from clip_index.encoder.image_headers import ImageLimits
from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from fakes.drifting_encoder import DriftingEncoder
from fakes.hash_encoder import HashEncoder
from query_api.encoding.encoder_drift import EncoderDrift
from query_api.swap.index_swap import INDEX_SWAP
from query_api.telemetry.metrics import METRICS
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EncoderDrift.__init__.__kwdefaults__, "every_seconds", 0.01)  # type: ignore[arg-type]
    monkeypatch.setitem(EncoderDrift.__init__.__kwdefaults__, "tick_seconds", 0.01)  # type: ignore[arg-type]


def directory(index: SmallIndex) -> IndexDirectory:
    return IndexDirectory.open(index.root)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (a thread changes it)
        await asyncio.sleep(0.002)


def metric(client: Client, name: str, **labels: str) -> float | None:
    value: float | None = client.app[METRICS].registry.get_sample_value(name, labels)
    return value


async def readiness(client: Client) -> tuple[int, str]:
    response = await client.get("/readyz")
    return response.status, await response.text()


async def test_an_encoder_that_fits_is_ready_and_measured(
    small_index: SmallIndex, start_service: StartService
) -> None:
    ensure_canaries(directory(small_index).store, HashEncoder())
    client = await start_service(small_index)
    await until(lambda: metric(client, "cliptide_query_canary_cosine", modality="image") is not None)
    assert metric(client, "cliptide_query_canary_cosine", modality="text") == pytest.approx(1.0)
    assert metric(client, "cliptide_query_encoder_drifted") == 0
    assert (await readiness(client))[0] == 200


async def test_an_encoder_that_has_drifted_is_red_with_both_cosines(
    small_index: SmallIndex, start_service: StartService
) -> None:
    ensure_canaries(directory(small_index).store, HashEncoder())
    with capture_logs() as lines:
        client = await start_service(small_index, encoder=DriftingEncoder(0.9, "text"))
        await until(lambda: client.app[INDEX_SWAP].pair.drift.complaint is not None)
        status, text = await readiness(client)
    assert status == 503
    assert "texts 0.9000, pictures 1.0000; at least 0.999 is expected" in text
    assert str(small_index.root) not in text, "everybody may ask"
    assert metric(client, "cliptide_query_encoder_drifted") == 1
    assert [line["event"] for line in lines].count("encoder drifted") == 1
    assert (await client.get("/livez")).status == 200
    assert (await client.post("/v1/search", json={"text": "a red dress"})).status == 200


async def test_an_encoder_that_is_mended_is_ready_again(
    small_index: SmallIndex, start_service: StartService
) -> None:
    ensure_canaries(directory(small_index).store, HashEncoder())
    encoder = DriftingEncoder(0.9)
    client = await start_service(small_index, encoder=encoder)
    await until(lambda: client.app[INDEX_SWAP].pair.drift.complaint is not None)
    encoder.cosine = 1.0
    await until(lambda: client.app[INDEX_SWAP].pair.drift.complaint is None)
    assert (await readiness(client))[0] == 200


async def test_an_index_without_canaries_is_served_and_they_are_looked_at_when_they_come(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, encoder=DriftingEncoder(0.9))
    assert (await readiness(client))[0] == 200
    assert metric(client, "cliptide_query_canary_cosine", modality="image") is None
    ensure_canaries(directory(small_index).store, HashEncoder())
    await until(lambda: client.app[INDEX_SWAP].pair.drift.complaint is not None)
    (directory(small_index).path / "canaries.json").unlink()
    await until(lambda: client.app[INDEX_SWAP].pair.drift.complaint is None)


async def test_damaged_canaries_are_a_problem_that_readiness_tells(
    small_index: SmallIndex, start_service: StartService
) -> None:
    (directory(small_index).path / "canaries.json").write_bytes(b"{}")
    with capture_logs() as lines:
        client = await start_service(small_index)
        await until(lambda: client.app[INDEX_SWAP].pair.drift.problem is not None)
        status, text = await readiness(client)
    assert status == 200
    assert "the encoder cannot be compared with the index's canaries; the log says why" in text
    [told] = [line for line in lines if line["event"] == "canaries not compared"]
    assert "remove the file" in told["error"]
    assert client.app[INDEX_SWAP].pair.drift.job.problem is None


async def test_a_picture_that_the_service_s_limits_refuse_is_not_compared(
    small_index: SmallIndex, start_service: StartService
) -> None:
    ensure_canaries(directory(small_index).store, HashEncoder())
    client = await start_service(small_index, encoder=HashEncoder(limits=ImageLimits(max_pixels=1_000)))
    await until(lambda: metric(client, "cliptide_query_canary_cosine", modality="image") is not None)
    assert metric(client, "cliptide_query_encoder_drifted") == 0
    assert (await readiness(client)) == (200, '{"status":"ok"}')
