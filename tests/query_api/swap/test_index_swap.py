"""The service follows the pointer: it opens another index and its encoder beside, and swaps in one step."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.indexes.pointer import name_former
from clip_index.indexes.recorded_model import RecordedModel
from clip_index.storage.index_roots import open_root
from fakes.hash_encoder import HashEncoder, draw_picture
from tests.query_api.small_index import TOPIC, SmallIndex
from tests.query_api.swap.swapping_service import (
    NEW,
    OLD,
    PATIENCE_SECONDS,
    TEXTS,
    Models,
    best_score,
    build_index,
    embedding_of,
    index_of,
    swap_of,
    switch,
    until,
    until_served,
)


async def test_the_named_index_is_served_with_its_own_encoder(root: Path, start: Any) -> None:
    client = await start()
    before = await best_score(client, "red coat")
    switch(root, "v2")
    await until_served(client, "v2")
    after = await best_score(client, "red coat")
    assert before != pytest.approx(after)
    assert (await index_of(client))["encoder"]["dimension"] == NEW.dimension
    assert len(await embedding_of(client, "red")) == NEW.dimension
    document = await (await client.get("/openapi.json")).text()
    assert str(NEW.dimension) in document


async def test_a_rollback_moves_back_and_loads_the_former_model_again(
    root: Path, start: Any, models: Models
) -> None:
    client = await start()
    before = await best_score(client, "red coat")
    switch(root, "v2")
    await until_served(client, "v2")
    name_former(open_root(root))
    await until_served(client, "main")
    assert await best_score(client, "red coat") == pytest.approx(before)
    assert models.loaded == ["new", "old"]


async def test_under_load_no_request_fails_and_no_answer_mixes_two_models(root: Path, start: Any) -> None:
    client = await start(has_percentiles=False)
    done = asyncio.Event()
    scores: set[float] = set()

    async def ask() -> None:
        while not done.is_set():
            scores.add(round(await best_score(client, "red coat"), 4))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for number in range(6):
        switch(root, "main" if number % 2 else "v2")
        await until_served(client, "main" if number % 2 else "v2")
    done.set()
    await asyncio.gather(*asking)
    [old], [new] = (encoder.encode([encoder.prepare_text("red coat")]) for encoder in (OLD, NEW))
    expected = set()
    for encoder, query in ((OLD, old), (NEW, new)):
        rows = np.concatenate(encoder.encode([encoder.prepare_text(text) for text in TEXTS.values()]))
        expected.add(round(float((rows.astype(np.float16).astype(np.float32) @ query[0]).max()), 4))
    assert len(scores) == 2
    assert all(min(abs(score - one) for one in expected) < 2e-3 for score in scores)


async def test_a_request_keeps_its_index_and_encoder_though_another_serves_meanwhile(
    root: Path, start: Any
) -> None:
    """The request waits for an offset of the former index while the swap happens."""
    client = await start()
    waiting = asyncio.create_task(
        client.post(
            "/v1/search",
            json={
                "text": "a new coat",
                "modality": "text",
                "k": 1,
                "min_offsets": {f"{TOPIC}-0": 5},
                "timeout_ms": 60_000,
            },
        )
    )
    former = swap_of(client).pair
    await until(lambda: former._num_held > 0)
    switch(root, "v2")
    await until_served(client, "v2")
    writer = SmallIndex(root, encoder=OLD).open_existing("main")
    writer.commit(0, writer.text("t-new", "a new coat"))
    answer = await (await waiting).json()
    [hit] = answer["results"]["text"]["hits"]
    assert hit["content_id"] == "t-new"
    assert hit["score"] == pytest.approx(1.0, abs=1e-3)


async def test_two_indexes_of_one_model_share_the_encoder(root: Path, start: Any, models: Models) -> None:
    build_index(root, "v3", OLD, "old")
    client = await start()
    encoder = swap_of(client).pair.encoder
    switch(root, "v3")
    await until_served(client, "v3")
    assert swap_of(client).pair.encoder is encoder
    assert models.loaded == []
    await until(lambda: len(swap_of(client)._live) == 1)
    await best_score(client, "a text that was not asked before")


async def test_percentiles_are_there_from_the_first_answer_of_the_new_index(root: Path, start: Any) -> None:
    client = await start(has_percentiles=True)
    scales = swap_of(client).pair.scales
    assert scales is not None
    await asyncio.wait_for(scales.built(), PATIENCE_SECONDS)
    switch(root, "v2")
    statuses = set()
    while swap_of(client).served_id != "v2":
        response = await client.post("/v1/search", json={"text": "red", "min_percentile": 0.1})
        statuses.add(response.status)
    response = await client.post("/v1/search", json={"text": "red", "min_percentile": 0.1})
    assert statuses | {response.status} == {200}


@pytest.mark.parametrize("key", [None, "a key of sixteen"], ids=["derived key", "configured key"])
async def test_a_cursor_of_the_former_index_is_gone_as_any_stale_one(
    root: Path, start: Any, key: str | None
) -> None:
    client = await start(cursor_key=key)
    request = {"text": "red", "modality": "text", "k": 1, "paged": True}
    cursor = (await (await client.post("/v1/search", json=request)).json())["next_cursor"]
    switch(root, "v2")
    await until_served(client, "v2")
    stale = await client.post("/v1/search", json={"cursor": cursor})
    assert (stale.status, (await stale.json())["error"]["code"]) == (410, "generation_gone")
    forged = await client.post("/v1/search", json={"cursor": cursor[:-8] + "AAAAAAA="})
    assert (forged.status, (await forged.json())["error"]["code"]) == (400, "bad_cursor")


async def test_a_live_stream_outlives_a_swap_and_shows_the_new_index(root: Path, start: Any) -> None:
    client = await start()
    async with client.get("/v1/live") as stream:
        await stream.content.readuntil(b"\n\n")
        index = SmallIndex(root, encoder=NEW).open_existing("v2")
        index.commit(0, index.text("t-more", "one more"))
        switch(root, "v2")
        await until_served(client, "v2")

        async def until_shown() -> None:
            while b'"next_offset":5' not in await stream.content.readuntil(b"\n\n"):
                continue

        await asyncio.wait_for(until_shown(), PATIENCE_SECONDS)
        await until(lambda: len(swap_of(client)._live) == 1)


async def test_a_setting_names_the_model_where_it_lies_elsewhere(
    root: Path, start: Any, models: Models
) -> None:
    moved = HashEncoder(seed=9)
    models.encoders["moved"] = moved
    build_index(root, "v3", moved, "/models/where/it/was")
    client = await start(overrides={"v3": RecordedModel("moved")})
    switch(root, "v3")
    await until_served(client, "v3")
    assert models.loaded == ["moved"]


async def test_an_index_that_is_behind_is_waited_for_so_that_answers_do_not_go_back(
    root: Path, start: Any
) -> None:
    index = SmallIndex(root, encoder=OLD).open_existing("main")
    index.commit(0, index.text("t-more", "one more"))
    client = await start()
    await until(lambda: swap_of(client).pair.index.searcher.shards[f"{TOPIC}-0"].next_offset == 5)
    switch(root, "v2")
    await until(lambda: len(swap_of(client)._live) == 2)
    assert swap_of(client).served_id == "main"
    behind = SmallIndex(root, encoder=NEW).open_existing("v2")
    behind.commit(0, behind.text("t-more", "one more"))
    await until_served(client, "v2")
    assert (await index_of(client))["shards"][f"{TOPIC}-0"]["next_offset"] == 5


async def test_an_index_that_stays_behind_is_served_after_a_while_because_a_rollback_must_not_wait(
    root: Path, start: Any
) -> None:
    index = SmallIndex(root, encoder=OLD).open_existing("main")
    index.commit(0, index.text("t-more", "one more"))
    client = await start()
    await until(lambda: swap_of(client).pair.index.searcher.shards[f"{TOPIC}-0"].next_offset == 5)
    swap_of(client).catch_up_seconds = 0.05
    switch(root, "v2")
    await until_served(client, "v2")


async def test_an_index_of_another_model_that_appears_later_is_served(start: Any, root: Path) -> None:
    """The service starts on an empty root with the configured model, which is not that of the first index."""
    shutil.move(root / "indexes", root / "elsewhere")
    (root / "current-1.json").unlink()
    client = await start()
    build_index(root, "first", NEW, "new")
    await until_served(client, "first")
    await best_score(client, "red")


async def test_every_way_of_asking_is_answered_by_the_new_index(root: Path, start: Any) -> None:
    """Thumbnails, browsing, facets, recommendations and the calls of two earlier services."""
    index = SmallIndex(root, encoder=NEW).open_existing("v2")
    new_picture = draw_picture(9)
    index.commit(0, index.text("t-only-here", "a text of the new index", owner_id="ann"))
    index.commit(1, index.image("p-only-here", new_picture, link="https://x.test/9", thumbnail=b"new webp"))
    client = await start()
    switch(root, "v2")
    await until_served(client, "v2")
    assert await (await client.get("/v1/contents/p-only-here/thumbnail")).read() == b"new webp"
    assert (await client.get("/v1/contents/t-only-here")).status == 200
    browsed = await (await client.post("/v1/browse", json={"k": 10})).json()
    assert "t-only-here" in {hit["content_id"] for hit in browsed["results"]["text"]["hits"]}
    links = await (await client.post("/text_url", params={"text_query": "anything"})).json()
    assert links == ["https://x.test/9"]
    question = {"k": "1", "type": "image", "user": "bob"}
    call = "/mv_retrieval/v0.1/retrieve_contents"
    retrieved = await (await client.post(call, params=question, data=new_picture)).json()
    assert retrieved["image"]["contents"] == ["p-only-here"]
    assert retrieved["image"]["scores"] == [pytest.approx(1.0, abs=1e-3)]
    liked = {"positive": [{"content_id": "t-only-here"}], "k": 3}
    recommended = await client.post("/v1/recommend", json=liked)
    assert recommended.status == 200, await recommended.text()
    facets = await (await client.post("/v1/facets", json={"text": "a text", "fields": ["owner_id"]})).json()
    assert facets["fields"]["owner_id"]["values"] == [{"value": "ann", "count": 1}]


async def test_a_vector_of_the_former_dimension_is_refused_after_the_swap(root: Path, start: Any) -> None:
    client = await start()
    vector = {"vector": [1.0] + [0.0] * (OLD.dimension - 1), "k": 1}
    assert (await client.post("/v1/search", json=vector)).status == 200
    switch(root, "v2")
    await until_served(client, "v2")
    refused = await client.post("/v1/search", json=vector)
    assert (refused.status, (await refused.json())["error"]["code"]) == (422, "wrong_dimension")
