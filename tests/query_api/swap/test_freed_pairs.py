"""Nothing is left of an index and its encoder that serve no longer, or that never did."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from fakes.hash_encoder import HashEncoder
from tests.query_api.swap.swapping_service import (
    NEW,
    OLD,
    Models,
    best_score,
    failures_of,
    swap_of,
    switch,
    until,
    until_served,
)


class Weighty(HashEncoder):
    """Can be referred to weakly."""

    __slots__ = ("__weakref__",)


@pytest.fixture
def no_cycles() -> Iterator[None]:
    """What refers to itself in a circle stays, as in a service whose collector comes hours later."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycles")
async def test_the_former_encoder_is_freed_after_the_last_request_that_uses_it(
    root: Path, start: Any, models: Models
) -> None:
    models.encoders["served"] = Weighty(dimension=64)
    watched = weakref.ref(models.encoders["served"])
    client = await start()
    await best_score(client, "red")
    models.encoders.pop("served")
    holding = swap_of(client).held()
    holding.__enter__()
    switch(root, "v2")
    await until_served(client, "v2")
    assert watched() is not None
    holding.__exit__(None, None, None)
    del holding
    await until(lambda: watched() is None)


@pytest.mark.usefixtures("no_cycles")
async def test_after_each_swap_nothing_of_the_former_pair_is_left(
    root: Path, start: Any, models: Models
) -> None:
    client = await start(has_percentiles=True, scrub_seconds=3600.0)
    for index_id, model, encoder in (("v2", "new", NEW), ("main", "old", OLD)) * 2:
        models.encoders[model] = Weighty(dimension=encoder.fingerprint.dimension, seed=int(encoder is NEW))
        switch(root, index_id)
        await until_served(client, index_id)
        await until(lambda: len(swap_of(client)._live) == 1)
        await best_score(client, "a red dress")
        await client.post("/v1/recommend", json={"positive": [{"text": "red"}]})
        pair = swap_of(client).pair
        parts = (pair, pair._reader, pair.index, pair.encoder, pair.scales, pair.drift, pair._scrub)
        watched = [weakref.ref(one) for one in (*parts, pair.index.searcher, models.encoders[model])]
        models.encoders[model] = encoder
        del pair, parts
        switch(root, "main" if index_id == "v2" else "v2")
        await until(lambda gone=index_id: swap_of(client).served_id != gone)
        await until(lambda refs=watched: not any(one() for one in refs))


@pytest.mark.usefixtures("no_cycles")
async def test_nothing_is_left_of_an_encoder_that_is_not_swapped_in(
    root: Path, start: Any, models: Models
) -> None:
    ensure_canaries(IndexDirectory.open(root, "v2").store, HashEncoder(dimension=48, seed=2))
    models.encoders["new"] = Weighty(dimension=48, seed=1)
    watched = weakref.ref(models.encoders["new"])
    client = await start()
    switch(root, "v2")
    await until(lambda: failures_of(client) > 0)
    models.encoders["new"] = NEW
    await until(lambda: watched() is None)
