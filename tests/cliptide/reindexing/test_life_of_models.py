"""The life of an index's models, by chance: uploads, new indexes, kills, switches and rollbacks in any order.

After each sequence the service answers what a fold of the log says, under the model that the pointer names.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Encoder, Prepared, PreparedImage, PreparedText
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from clip_index.generations.history import read_newest
from clip_index.indexes.canaries import FILE as CANARIES
from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import read_pointer
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import open_root
from clip_index.storage.local_store import LocalShardStore
from cliptide.__main__ import main
from cliptide.reindexing import comparing, reindex_command
from consumer.app import Connections, build_consumer
from consumer.errors import ConsumerFault
from consumer.opened_index import IndexLocation
from consumer.pipeline import Pipeline
from consumer.telemetry.metrics import Metrics as ConsumerMetrics
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.app import AppSettings, build_app
from query_api.root_candidates import RootCandidates
from query_api.swap import index_swap
from query_api.swap.index_swap import INDEX_SWAP
from schemas.codec import encode_event
from schemas.events import DeleteEvent, Event, ImageContent, PatchEvent, TextContent, UploadEvent
from tests.consumer.running import eventually, quick_options
from tests.query_api.conftest import SETTINGS

pytestmark = pytest.mark.broker

NUM_STEPS, NUM_IDS, NUM_PARTITIONS, PATIENCE_SECONDS = 20, 12, 2, 60.0
BEGAN = datetime(2026, 1, 2, tzinfo=timezone.utc)
QUESTIONS = ("a red dress", "number 7", "white shoes")


class Mortal:
    """An encoder in whose consumer a death can be arranged. Implements Encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.dies = False

    @property
    def fingerprint(self) -> Any:
        return self._encoder.fingerprint

    def prepare_image(self, data: bytes) -> PreparedImage:
        return self._encoder.prepare_image(data)

    def prepare_text(self, text: str) -> PreparedText:
        return self._encoder.prepare_text(text)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        if self.dies:
            raise RuntimeError("killed")
        return self._encoder.encode(prepared)


@dataclass
class Models:
    """The models of this world by their names, for services and commands."""

    by_name: dict[str, Encoder] = field(
        default_factory=lambda: {f"m{n}": HashEncoder(dimension=32 + 16 * n, seed=n) for n in range(4)}
    )

    def load(self, settings: EncoderSettings) -> Encoder:
        if settings.model not in self.by_name:
            raise EncoderUnavailable(settings.model, "there is no such model")
        return self.by_name[settings.model]

    def weigh(self, _: EncoderSettings) -> int | None:
        return None


@dataclass
class Fold:
    """What the log means, kept as plainly as possible. No event has a version, so each applies."""

    live: dict[str, str | bytes] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        if isinstance(event, UploadEvent):
            content = event.content
            assert isinstance(content, TextContent | ImageContent)
            self.live[event.content_id] = content.text if isinstance(content, TextContent) else content.data
            self.titles.pop(event.content_id, None)
        elif isinstance(event, DeleteEvent):
            self.live.pop(event.content_id, None)
            self.titles.pop(event.content_id, None)
        elif event.content_id in self.live and event.title is not None:
            self.titles[event.content_id] = event.title

    def scores(self, encoder: Encoder, question: str, kind: type) -> dict[str, float]:
        [query] = encoder.encode([encoder.prepare_text(question)])
        found = {}
        for content_id, content in self.live.items():
            if isinstance(content, kind):
                prepare = encoder.prepare_text if isinstance(content, str) else encoder.prepare_image
                [rows] = encoder.encode([prepare(content)])  # type: ignore[arg-type]
                found[content_id] = float((rows @ query[0]).max())
        return found


@dataclass
class Life:
    """A topic, the indexes of a root with their consumers, and a query service."""

    kafka: KafkaSettings
    topic: str
    root: Path
    chance: random.Random
    serve: Callable[[], Any]
    models: Models = field(default_factory=Models)
    fold: Fold = field(default_factory=Fold)
    model_of: dict[str, str] = field(default_factory=lambda: {"main": "m0"})
    consumers: dict[str, tuple[Pipeline, Mortal, KafkaPublisher]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    client: TestClient[Any, Any] | None = None
    num_events: int = 0
    steps: list[str] = field(default_factory=list)

    def group(self, index_id: str) -> str:
        return f"{self.topic}-{index_id}"

    @property
    def named(self) -> str:
        return read_pointer(open_root(self.root)).index_id

    def consume(self, index_id: str) -> None:
        if index_id in self.consumers:
            return
        encoder, publisher = Mortal(self.models.by_name[self.model_of[index_id]]), KafkaPublisher(self.kafka)
        connections = Connections(
            KafkaRecordSource(self.kafka, self.group(index_id)),
            publisher,
            encoder,
            KafkaAdmin(self.kafka).describe_topic(self.topic),
            f"{self.topic}.dead-letters",
        )
        location = IndexLocation(self.root, index_id, self.group(index_id))
        options = replace(quick_options(), canary_seconds=3600.0)
        self.mend(index_id)
        pipeline = build_consumer(connections, location, options, ConsumerMetrics())
        before = self.generations(index_id)
        pipeline.start()
        self.consumers[index_id] = (pipeline, encoder, publisher)
        # a member that followed one which was ended while it joined was assigned nothing for a minute
        eventually(lambda: pipeline.is_stopping or self.have_grown(index_id, before), PATIENCE_SECONDS)
        assert pipeline.failure is None

    def mend(self, index_id: str) -> None:
        """Let the canaries be written anew, as an operator does before an index is built on."""
        if index_id in self.broken:
            (self.root / "indexes" / index_id / CANARIES).unlink()
            self.broken.remove(index_id)

    def generations(self, index_id: str) -> list[int]:
        folders = [self.root / "indexes" / index_id / f"{self.topic}-{n}" for n in range(NUM_PARTITIONS)]
        newest = [read_newest(LocalShardStore(folder)) if folder.exists() else None for folder in folders]
        return [0 if manifest is None else manifest.generation for manifest in newest]

    def have_grown(self, index_id: str, before: Sequence[int]) -> bool:
        """Whether every shard has been taken over since."""
        return all(now > then for now, then in zip(self.generations(index_id), before, strict=True))

    def end(self, index_id: str) -> BaseException | None:
        pipeline, _, publisher = self.consumers.pop(index_id)
        try:
            pipeline.finish()
        except ConsumerFault as fault:
            return fault
        finally:
            publisher.close()
        return None

    def publish(self, *events: Event) -> None:
        with closing(KafkaPublisher(self.kafka)) as publisher:
            for event in events:
                encoded = encode_event(event)
                publisher.publish(
                    self.topic, key=encoded.key, value=encoded.value, headers=encoded.headers
                ).result(PATIENCE_SECONDS)
                self.fold.apply(event)
                self.num_events += 1

    def facts(self, content_id: str) -> dict[str, Any]:
        number = self.num_events
        return {
            "event_id": f"event-{number}",
            "content_id": content_id,
            "source": "tests",
            "occurred_at": BEGAN + timedelta(seconds=number),
        }

    def any_id(self) -> str:
        return f"c-{self.chance.randrange(NUM_IDS)}"

    def covers_the_log(self, index_id: str) -> bool:
        reader = IndexReader(self.root, index_id)
        try:
            reader.reload()
            if reader.searcher is None:
                return False
            return sum(one.next_offset for one in reader.searcher.shards.values()) >= self.num_events
        finally:
            reader.close()

    def run(self, *words: str) -> Result:
        command, *rest = words
        arguments = [command, "--index-root", str(self.root), *rest]
        result = CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result


def upload(life: Life) -> None:
    for _ in range(life.chance.randint(1, 3)):
        number = life.num_events
        is_text = life.chance.random() < 0.6
        content = TextContent(f"number {number}") if is_text else ImageContent(draw_picture(number % 40))
        life.publish(UploadEvent(**life.facts(life.any_id()), content=content))


def delete(life: Life) -> None:
    life.publish(DeleteEvent(**life.facts(life.any_id())))


def patch(life: Life) -> None:
    life.publish(PatchEvent(**life.facts(life.any_id()), title=f"title {life.num_events}"))


def reindex(life: Life) -> None:
    if len(life.model_of) == len(life.models.by_name):
        return
    index_id, model = f"v{len(life.model_of) + 1}", f"m{len(life.model_of)}"
    kafka = ["--bootstrap-servers", life.kafka.bootstrap_servers]
    kafka += ["--kafka-properties", json.dumps(dict(life.kafka.properties))]
    flags = ["--index-id", index_id, "--model", model, "--group-id", life.group(index_id), *kafka]
    result = life.run("reindex", *flags)
    assert result.exit_code == 0, result.output
    life.model_of[index_id] = model
    life.consume(index_id)


def start_or_stop(life: Life) -> None:
    index_id = life.chance.choice(sorted(life.model_of))
    if index_id in life.consumers:
        assert life.end(index_id) is None
    else:
        life.consume(index_id)


def kill(life: Life) -> None:
    """A consumer dies with an upload in its hands, and another one takes its place."""
    if not life.consumers:
        return
    index_id = life.chance.choice(sorted(life.consumers))
    pipeline, encoder, _ = life.consumers[index_id]
    encoder.dies = True
    upload_text = TextContent(f"deadly {life.num_events}")
    life.publish(UploadEvent(**life.facts(life.any_id()), content=upload_text))
    assert pipeline.wait(PATIENCE_SECONDS)
    assert "killed" in str(life.end(index_id))
    life.consume(index_id)


def switch(life: Life) -> None:
    index_id = life.chance.choice(sorted(life.model_of))
    is_consumed = {index_id, life.named} <= life.consumers.keys()
    result = life.run("switch", index_id, "--wait-seconds", "20" if is_consumed else "0")
    if result.exit_code == 0:
        assert life.named == index_id
    else:
        assert result.exit_code in (1, 2)
        assert "Error: " in result.stderr


def rollback(life: Life) -> None:
    before = life.named
    result = life.run("rollback")
    assert (life.named != before) == (result.exit_code == 0), result.output


def compare(life: Life) -> None:
    first, second = life.chance.choice(sorted(life.model_of)), life.chance.choice(sorted(life.model_of))
    result = life.run("compare", first, second, "--sample", "5", "--json")
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exit_code == 0 or "Error: " in result.stderr


def break_canaries(life: Life) -> None:
    """Those of an index are as if another encoder had made them, until somebody puts them right."""
    others = sorted(life.model_of.keys() - {life.named} - life.broken)
    if not others:
        return
    index_id = life.chance.choice(others)
    if index_id in life.consumers:
        assert life.end(index_id) is None
    file = life.root / "indexes" / index_id / CANARIES
    dimension = life.models.by_name[life.model_of[index_id]].fingerprint.dimension
    file.unlink()
    ensure_canaries(IndexDirectory.open(life.root, index_id).store, HashEncoder(dimension, seed=99))
    life.broken.add(index_id)


STEPS = (upload, upload, upload, delete, patch, reindex, start_or_stop, kill, switch, switch, rollback)
STEPS += (compare, break_canaries)


async def restart(life: Life) -> None:
    if life.client is not None:
        await life.client.close()
    life.client = await life.serve()


def settle(life: Life) -> None:
    """Put right what was broken, and let the named index reach the end of the log."""
    for index_id in sorted(life.broken):
        life.mend(index_id)
    life.consume(life.named)
    pipeline, *_ = life.consumers[life.named]
    eventually(lambda: pipeline.is_stopping or life.covers_the_log(life.named), PATIENCE_SECONDS)
    assert not pipeline.is_stopping, (pipeline.failure, life.steps)


async def answers(life: Life, question: str, modality: str) -> dict[str, tuple[float, str | None]]:
    assert life.client is not None
    body = {"text": question, "modality": modality, "k": NUM_IDS, "include": ["metadata"]}
    async with life.client.post("/v1/search", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
    hits = answer["results"][modality]["hits"]
    return {hit["content_id"]: (hit["score"], hit.get("title")) for hit in hits}


async def check(life: Life) -> None:
    await asyncio.to_thread(settle, life)
    assert life.client is not None
    assert life.client.app is not None
    swap = life.client.app[INDEX_SWAP]

    async def until_served() -> None:
        while swap.served_id != life.named or not await is_fresh(life):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(until_served(), PATIENCE_SECONDS)
    encoder = life.models.by_name[life.model_of[life.named]]
    for question in QUESTIONS:
        for modality, kind in (("text", str), ("image", bytes)):
            expected = life.fold.scores(encoder, question, kind)
            found = await answers(life, question, modality)
            assert found.keys() == expected.keys(), (modality, life.steps)
            for content_id, (score, title) in found.items():
                assert score == pytest.approx(expected[content_id], abs=2e-3), life.steps
                assert title == life.fold.titles.get(content_id), life.steps


async def is_fresh(life: Life) -> bool:
    assert life.client is not None
    async with life.client.get("/v1/index") as response:
        shards = (await response.json()).get("shards", {})
    return sum(shard["next_offset"] for shard in shards.values()) >= life.num_events


@pytest.fixture
def build_life(
    embedded_settings: KafkaSettings,
    unique_name: Callable[[str], str],
    tmp_path: Path,
    aiohttp_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], Life]:
    monkeypatch.setattr(index_swap, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(index_swap, "MIN_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(index_swap, "MAX_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(index_swap, "CATCH_UP_SECONDS", 0.05)
    models = Models()
    monkeypatch.setattr(reindex_command, "_load", lambda settings, _: models.load(settings))
    monkeypatch.setattr(comparing.Models, "load", lambda _, settings: models.load(settings))

    async def serve() -> TestClient[Any, Any]:
        def open_reader(index_id: str, fingerprint: Any) -> IndexReader:
            reader = IndexReader(tmp_path, index_id, fingerprint)
            reader.reload()
            return reader

        candidates = RootCandidates(tmp_path, EncoderSettings(model="m0"), models, open_reader, lambda: None)
        encoder = models.by_name["m0"]
        reader = IndexReader(tmp_path, None, encoder.fingerprint)
        app = build_app(encoder, reader, CollectorRegistry(), AppSettings(**SETTINGS), candidates=candidates)
        client: TestClient[Any, Any] = await aiohttp_client(app)
        return client

    def build(seed: int) -> Life:
        topic, admin = unique_name("uploads"), KafkaAdmin(embedded_settings)
        admin.create_topic(topic, TopicCreation(NUM_PARTITIONS))
        admin.create_topic(f"{topic}.dead-letters", TopicCreation(1))
        return Life(embedded_settings, topic, tmp_path, random.Random(seed), serve, models)

    return build


@pytest.mark.parametrize("seed", [3, 8])
async def test_whatever_happens_the_named_model_answers_what_the_log_means(
    build_life: Callable[[int], Life], seed: int
) -> None:
    life = build_life(seed)
    try:
        await asyncio.to_thread(life.consume, "main")
        await asyncio.to_thread(upload, life)
        await asyncio.to_thread(eventually, lambda: life.covers_the_log("main"), PATIENCE_SECONDS)
        await restart(life)
        for _ in range(NUM_STEPS):
            step = life.chance.choice([*STEPS, restart])
            life.steps.append(step.__name__)
            if step is restart:
                await restart(life)
            else:
                await asyncio.to_thread(step, life)
        await check(life)
    finally:
        for index_id in list(life.consumers):
            await asyncio.to_thread(life.end, index_id)
