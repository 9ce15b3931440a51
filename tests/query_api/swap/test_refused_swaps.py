"""What cannot be served leaves the present index serving, is told, and is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import name_current, name_former, newest_number
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import open_root
from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.swap import index_swap
from tests.query_api.conftest import SETTINGS
from tests.query_api.swap.swapping_service import (
    OLD,
    PATIENCE_SECONDS,
    Models,
    best_score,
    build_index,
    failures_of,
    readiness_of,
    state_of,
    swap_of,
    switch,
    until,
    until_served,
)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param("elsewhere", "there is no such model", id="model that nobody has here"),
        pytest.param("/no/such/path", "the index was built by hash", id="path of another machine"),
        pytest.param("old", "the index was built by hash", id="record of another model"),
        pytest.param(None, "the index was built by hash", id="no record"),
    ],
)
async def test_a_model_that_cannot_be_loaded_leaves_the_old_index_serving_and_is_told(
    root: Path, start: Any, model: str | None, reason: str
) -> None:
    build_index(root, "v3", HashEncoder(seed=9), model)
    client = await start()
    switch(root, "v3")
    await until(lambda: failures_of(client) > 0)
    status, problems = await readiness_of(client)
    assert status == 200
    assert problems == ["index v3 is to be served, and cannot be: the log says why; main is served"]
    await best_score(client, "red")
    assert reason in (swap_of(client).failure_of("v3") or "")
    switch(root, "v2")
    await until_served(client, "v2")
    assert await readiness_of(client) == (200, [])


async def test_an_encoder_that_has_drifted_from_the_new_index_is_not_swapped_in(
    root: Path, start: Any
) -> None:
    ensure_canaries(IndexDirectory.open(root, "v2").store, HashEncoder(dimension=48, seed=2))
    client = await start()
    switch(root, "v2")
    await until(lambda: failures_of(client) > 0)
    assert (await readiness_of(client))[0] == 200
    assert swap_of(client).served_id == "main"
    assert "drifted" in (swap_of(client).failure_of("v2") or "")


async def test_any_fault_of_a_model_is_tried_again_later_and_does_not_end_the_service(
    root: Path, start: Any, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_swap, "MIN_RETRY_SECONDS", 0.01)
    models.fault = RuntimeError("the device has no room")
    client = await start()
    switch(root, "v2")
    await until(lambda: failures_of(client) >= 2)
    assert swap_of(client).failure_of("v2") == "RuntimeError: the device has no room"
    models.fault = None
    await until_served(client, "v2")


async def test_a_model_that_does_not_fit_into_memory_beside_the_served_one_is_not_loaded(
    root: Path, start: Any, models: Models
) -> None:
    models.weights = 300 * 2**20
    client = await start(free=400 * 2**20)
    switch(root, "v2")
    await until(lambda: failures_of(client) > 0)
    failure = swap_of(client).failure_of("v2")
    assert failure is not None
    assert (
        "both encoders do not fit into memory: to load the second one takes 600 MiB, and 400 MiB" in failure
    )
    assert models.loaded == []


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda root: (root / "current-2.json").write_bytes(b"{"), id="pointer"),
        pytest.param(lambda root: switch(root, "nowhere"), id="no such index"),
        pytest.param(
            lambda root: (
                ((root / "indexes" / "v2" / "index.json").chmod(0o644) or True)
                and (root / "indexes" / "v2" / "index.json").write_bytes(b"{}")
                and switch(root, "v2")
            ),
            id="description",
        ),
    ],
)
async def test_a_pointer_that_leads_nowhere_leaves_the_old_index_serving_and_is_told(
    root: Path, start: Any, damage: Callable[[Path], object]
) -> None:
    client = await start()
    damage(root)
    await until(lambda: bool(swap_of(client).problems))
    status, problems = await readiness_of(client)
    assert (status, len(problems)) == (200, 1)
    assert str(root) not in problems[0]
    await best_score(client, "red")
    name_current(open_root(root), "main", after=newest_number(open_root(root)))
    await until(lambda: not swap_of(client).problems)


async def test_a_service_of_one_index_does_not_follow_the_pointer(
    root: Path, aiohttp_client: Any, at_once: None
) -> None:
    reader = IndexReader(root, "main", OLD.fingerprint)
    reader.reload()
    app = build_app(OLD, reader, CollectorRegistry(), AppSettings(**SETTINGS))
    client: TestClient[Any, Any] = await aiohttp_client(app)
    switch(root, "v2")
    await best_score(client, "red")
    assert swap_of(client).served_id == "main"
    refusal = swap_of(client).refusal("v2")
    assert refusal is not None
    assert "CLIPTIDE_INDEX__ID" in refusal


async def test_a_rollback_during_the_preparation_ends_it_and_the_new_index_never_serves(
    root: Path, start: Any, models: Models
) -> None:
    models.may_load.clear()
    client = await start()
    switch(root, "v2")
    await until(lambda: models.loaded == ["new"])
    assert await state_of(client, "v2") == ("preparing", None)
    name_former(open_root(root))
    await until(lambda: swap_of(client).preparing_id is None)
    models.may_load.set()
    assert swap_of(client).served_id == "main"
    assert await readiness_of(client) == (200, [])
    assert len(swap_of(client)._live) == 1
    switch(root, "v2")
    await until_served(client, "v2")
    await until(lambda: len(swap_of(client)._live) == 1)


async def test_a_service_stops_while_it_prepares_an_index(root: Path, start: Any, models: Models) -> None:
    models.may_load.clear()
    client = await start()
    switch(root, "v2")
    await until(lambda: models.loaded == ["new"])
    await asyncio.wait_for(client.close(), PATIENCE_SECONDS)
    models.may_load.set()


async def test_percentiles_that_are_not_built_are_a_failure_and_not_a_wait_for_ever(
    root: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_swap, "SCALES_SECONDS", 0.0)
    client = await start(has_percentiles=True)
    switch(root, "v2")
    await until(lambda: failures_of(client) > 0)
    assert "percentiles were not built within" in (swap_of(client).failure_of("v2") or "")
    await best_score(client, "red")
