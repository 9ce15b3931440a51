"""What the service says of an index beforehand, and what its metrics show after a swap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from fakes.hash_encoder import HashEncoder
from tests.query_api.conftest import metrics_of
from tests.query_api.small_index import SmallIndex
from tests.query_api.swap.swapping_service import (
    NEW,
    OLD,
    Models,
    build_index,
    failures_of,
    overwrite,
    state_of,
    swap_of,
    switch,
    until,
    until_served,
)


async def test_after_a_swap_the_metrics_tell_of_the_drift_of_the_served_encoder_alone(
    root: Path, start: Any
) -> None:
    ensure_canaries(IndexDirectory.open(root, "main").store, HashEncoder(dimension=64, seed=2))
    client = await start()
    await until(lambda: "cliptide_query_encoder_drifted 1.0" in metrics_of(client))
    switch(root, "v2")
    await until_served(client, "v2")
    await until(lambda: "cliptide_query_encoder_drifted 0.0" in metrics_of(client))
    assert "cliptide_query_canary_cosine{" not in metrics_of(client)


async def test_the_metrics_show_the_served_index_alone(root: Path, start: Any) -> None:
    index = SmallIndex(root, encoder=NEW).open_existing("v2")
    index.commit(0, index.text("t-more", "one more"))
    client = await start()
    info = 'cliptide_query_index_info{fingerprint="%s",index="%s"} 1.0'
    await until(lambda: info % (OLD.fingerprint.short, "main") in metrics_of(client))
    offset = 'cliptide_query_searcher_next_offset{shard="content-uploads-0"} '
    assert offset + "4.0" in metrics_of(client)
    switch(root, "v2")
    await until_served(client, "v2")
    shown = metrics_of(client)
    assert info % (NEW.fingerprint.short, "v2") in shown
    assert 'index="main"' not in shown
    assert offset + "5.0" in shown
    assert 'cliptide_query_index_swaps_total{status="swapped"} 1.0' in shown


async def test_a_service_says_beforehand_whether_it_could_serve_an_index(
    root: Path, start: Any, models: Models
) -> None:
    build_index(root, "v3", HashEncoder(seed=9), "old")
    client = await start(free=400 * 2**20)
    assert await state_of(client, "main") == ("served", None)
    assert await state_of(client, "v2") == ("possible", None)
    assert await state_of(client, "nowhere") == ("impossible", "there is no index nowhere")
    models.weights = 300 * 2**20
    state, reason = await state_of(client, "v2")
    assert state == "impossible"
    assert "both encoders do not fit into memory" in str(reason)
    assert models.loaded == []


async def test_what_cannot_be_read_is_told_without_a_path(root: Path, start: Any) -> None:
    description = root / "indexes" / "v2" / "index.json"
    overwrite(description, b"{}")
    client = await start()
    assert await state_of(client, "v2") == (
        "impossible",
        "the index v2 cannot be read: the log says why",
    )
    refusal = swap_of(client).refusal("../v2")
    assert refusal is not None
    assert "must match" in refusal


async def test_a_service_says_that_it_could_not_prepare_the_named_index(
    root: Path, start: Any, models: Models
) -> None:
    models.fault = RuntimeError("no room")
    client = await start()
    switch(root, "v2")
    await until(lambda: failures_of(client) > 0)
    assert await state_of(client, "v2") == ("failed", "the log of the service says why")
