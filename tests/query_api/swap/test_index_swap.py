"""The service follows the pointer: it opens another index and its encoder beside, and swaps in one step."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from clip_index.encoder.protocol import Encoder, EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from clip_index.generations.canaries import ensure_canaries
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.pointer import name_current, name_former, newest_number
from clip_index.generations.recorded_model import RecordedModel, record_model
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import open_root
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.app import AppSettings, build_app
from query_api.root_candidates import RootCandidates
from query_api.serving.engine import Reader
from query_api.swap import index_swap
from query_api.swap.index_swap import INDEX_SWAP, IndexSwap
from tests.query_api.conftest import SETTINGS, metrics_of
from tests.query_api.small_index import TOPIC, SmallIndex

PATIENCE_SECONDS = 60.0
OLD, NEW = HashEncoder(dimension=64), HashEncoder(dimension=48, seed=1)
TEXTS = {"t-red": "a red dress", "t-blue": "a blue coat", "t-shoe": "white shoes", "t-hat": "a green hat"}


def _set(event: threading.Event) -> threading.Event:
    event.set()
    return event


@dataclass
class Models:
    """Loads the hashing encoders by their names; `fault` is raised instead if it is set."""

    encoders: dict[str, Encoder] = field(default_factory=lambda: {"old": OLD, "new": NEW})
    weights: int | None = None
    loaded: list[str] = field(default_factory=list)
    fault: Exception | None = None
    may_load: threading.Event = field(default_factory=lambda: _set(threading.Event()))

    def load(self, settings: EncoderSettings) -> Encoder:
        self.loaded.append(settings.model)
        self.may_load.wait(PATIENCE_SECONDS)
        if self.fault is not None:
            raise self.fault
        if settings.model not in self.encoders:
            raise EncoderUnavailable(settings.model, "there is no such model")
        return self.encoders[settings.model]

    def weigh(self, _: EncoderSettings) -> int | None:
        return self.weights


def build_index(root: Path, index_id: str, encoder: Encoder, model: str | None) -> SmallIndex:
    index = SmallIndex(root, encoder=encoder, index_id=index_id).create()
    index.commit(0, *(index.text(content_id, text) for content_id, text in TEXTS.items()))
    index.commit(1, *(index.image(f"p-{n}", draw_picture(n), thumbnail=b"webp") for n in range(3)))
    if model is not None:
        record_model(IndexDirectory.open(root, index_id).store, RecordedModel(model))
    return index


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the same contents in two indexes of different models, of which main serves."""
    build_index(tmp_path, "main", OLD, "old")
    build_index(tmp_path, "v2", NEW, "new")
    return tmp_path


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the pointer often."""
    monkeypatch.setattr(index_swap, "LOOK_SECONDS", 0.01)


@pytest.fixture
def start(root: Path, models: Models, aiohttp_client: Any, at_once: None) -> Callable[..., Any]:
    async def start_service(
        *, overrides: dict[str, RecordedModel] | None = None, free: int | None = None, **settings: Any
    ) -> TestClient[Any, Any]:
        def open_reader(index_id: str, fingerprint: EncoderFingerprint) -> Reader:
            reader = IndexReader(root, index_id, fingerprint)
            reader.reload()
            return reader

        candidates = RootCandidates(
            root, EncoderSettings(model="old"), models, open_reader, lambda: free, overrides or {}
        )
        reader = IndexReader(root, None, OLD.fingerprint)
        with contextlib.suppress(Exception):
            reader.reload()
        encoder = models.encoders.get("served", OLD)
        app = build_app(
            encoder,
            reader,
            CollectorRegistry(),
            AppSettings(**{**SETTINGS, **settings}),
            candidates=candidates,
        )
        client: TestClient[Any, Any] = await aiohttp_client(app)
        return client

    return start_service


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def switch(root: Path, index_id: str) -> None:
    top = open_root(root)
    name_current(top, index_id, after=newest_number(top))


def swap_of(client: TestClient[Any, Any]) -> IndexSwap:
    assert client.app is not None
    return client.app[INDEX_SWAP]


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 (the service tells nobody)
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), PATIENCE_SECONDS)


async def until_served(client: TestClient[Any, Any], index_id: str) -> None:
    await until(lambda: swap_of(client).served_id == index_id)


async def best_score(client: TestClient[Any, Any], text: str) -> float:
    """The score of the best text. It tells the model apart: each gives another number."""
    async with client.post("/v1/search", json={"text": text, "modality": "text", "k": 1}) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return float(answer["results"]["text"]["hits"][0]["score"])


async def index_of(client: TestClient[Any, Any]) -> dict[str, Any]:
    return dict(await (await client.get("/v1/index")).json())


async def embedding_of(client: TestClient[Any, Any], text: str) -> list[float]:
    answer = await (await client.post("/v1/embed", json={"contents": [{"text": text}]})).json()
    return list(answer["embeddings"][0][0])


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


async def readiness_of(client: TestClient[Any, Any]) -> tuple[int, list[str]]:
    response = await client.get("/readyz")
    return response.status, (await response.json()).get("problems", [])


def failures_of(client: TestClient[Any, Any]) -> float:
    [line] = [one for one in metrics_of(client).splitlines() if 'swaps_total{status="failed"}' in one]
    return float(line.rsplit(" ", 1)[1])


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


async def state_of(client: TestClient[Any, Any], index_id: str) -> tuple[str, str | None]:
    response = await client.get(f"/v1/indexes/{index_id}")
    answer = await response.json()
    assert response.status == 200, answer
    return answer["state"], answer["reason"]


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


async def test_while_an_index_is_prepared_the_event_loop_gets_its_turn_soon(
    root: Path, start: Any, models: Models
) -> None:
    usual = sys.getswitchinterval()
    client = await start()
    models.may_load.clear()
    switch(root, "v2")
    await until(lambda: models.loaded != [])
    assert sys.getswitchinterval() == pytest.approx(index_swap.PREPARING_SWITCH_SECONDS)
    models.may_load.set()
    await until_served(client, "v2")
    assert sys.getswitchinterval() == pytest.approx(usual)


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
