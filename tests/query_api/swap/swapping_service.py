"""A root of two indexes of different models, a service that follows its pointer, and what a test asks it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import name_current, newest_number
from clip_index.indexes.recorded_model import RecordedModel, record_model
from clip_index.storage.index_roots import open_root
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.swap.index_swap import INDEX_SWAP, IndexSwap
from tests.query_api.conftest import metrics_of
from tests.query_api.small_index import SmallIndex

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


async def readiness_of(client: TestClient[Any, Any]) -> tuple[int, list[str]]:
    response = await client.get("/readyz")
    return response.status, (await response.json()).get("problems", [])


def failures_of(client: TestClient[Any, Any]) -> float:
    [line] = [one for one in metrics_of(client).splitlines() if 'swaps_total{status="failed"}' in one]
    return float(line.rsplit(" ", 1)[1])


async def state_of(client: TestClient[Any, Any], index_id: str) -> tuple[str, str | None]:
    response = await client.get(f"/v1/indexes/{index_id}")
    answer = await response.json()
    assert response.status == 200, answer
    return answer["state"], answer["reason"]
