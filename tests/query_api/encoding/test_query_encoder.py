"""Queries are encoded together while the encoder is busy, at once while it is idle, equal texts once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Prepared
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.encoding.encoder_queue import EncoderQueue
from query_api.encoding.query_encoder import QueryEncoder, QueryEncoderSettings
from query_api.errors import ContentRefused
from query_api.serving.workers import Workers
from query_api.telemetry.metrics import Metrics
from tests.consumer.running import PATIENCE_SECONDS


class GatedEncoder(HashEncoder):
    """Encodes only while the gate is open, and remembers how many items came together."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "gate", threading.Event())
        object.__setattr__(self, "has_begun", threading.Event())
        object.__setattr__(self, "batch_sizes", [])

    gate: threading.Event
    has_begun: threading.Event
    batch_sizes: list[int]

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        self.batch_sizes.append(len(prepared))
        self.has_begun.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().encode(prepared)


@asynccontextmanager
async def running(encoder: HashEncoder, **settings: int) -> AsyncIterator[QueryEncoder]:
    with Workers(4) as workers:
        metrics = Metrics(CollectorRegistry())
        query_encoder = QueryEncoder(encoder, workers, metrics, QueryEncoderSettings(**settings))
        async with query_encoder.running():
            yield query_encoder


@pytest.fixture
def encoder() -> GatedEncoder:
    return GatedEncoder()


async def test_an_idle_encoder_starts_at_once_and_a_busy_one_collects(encoder: GatedEncoder) -> None:
    async with running(encoder) as queries:
        asked = [asyncio.create_task(queries.encode_text("first"))]
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        asked += [asyncio.create_task(queries.encode_text(f"text {n}")) for n in range(5)]
        await until_waiting(queries, 5)
        encoder.gate.set()
        await asyncio.gather(*asked)
    assert encoder.batch_sizes == [1, 5]


async def test_the_length_of_the_queue_is_exported(encoder: GatedEncoder) -> None:
    def exported() -> float | None:
        return queries._metrics.registry.get_sample_value("cliptide_query_encoder_queue_length")

    async with running(encoder) as queries:
        asked = [asyncio.create_task(queries.encode_text("first"))]
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        asked += [asyncio.create_task(queries.encode_text(f"text {n}")) for n in range(5)]
        await until_waiting(queries, 5)
        assert exported() == 5
        encoder.gate.set()
        await asyncio.gather(*asked)
        assert exported() == 0


async def test_a_batch_is_bounded(encoder: GatedEncoder) -> None:
    async with running(encoder, max_batch=4) as queries:
        asked = [asyncio.create_task(queries.encode_text("first"))]
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        asked += [asyncio.create_task(queries.encode_text(f"text {n}")) for n in range(9)]
        await until_waiting(queries, 9)
        encoder.gate.set()
        await asyncio.gather(*asked)
    assert encoder.batch_sizes == [1, 4, 4, 1]


async def test_a_request_of_many_windows_holds_nobody_up_for_longer_than_one_text(
    encoder: GatedEncoder,
) -> None:
    long_texts = [" ".join(f"word{text}" for _ in range(300)) for text in range(10)]
    num_windows = encoder.prepare_text(long_texts[0]).num_rows
    assert num_windows > 4
    async with running(encoder, max_batch=4) as queries:
        embedding = [asyncio.create_task(queries.encode_content(text)) for text in long_texts]
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        await until_waiting(queries, 9)
        searching = [asyncio.create_task(queries.encode_text(f"text {n}")) for n in range(3)]
        await until_waiting(queries, 12)
        encoder.gate.set()
        rows = await asyncio.gather(*embedding)
        await asyncio.gather(*searching)
    assert encoder.batch_sizes == [1, 3 + 1, *[1] * 8]
    assert all(len(windows) == num_windows for windows in rows)


def test_texts_of_few_windows_pass_those_of_many() -> None:
    queue: EncoderQueue[str] = EncoderQueue()
    for name, num_rows in {"A": 64, "B": 64, "a": 1, "C": 2, "b": 1, "D": 3, "E": 2, "F": 64}.items():
        queue.put(name, num_rows)
    assert len(queue) == 8
    assert [queue.take(6) for _ in range(3)] == [["a", "b", "A", "C", "D"], ["B", "E"], ["F"]]
    assert (queue.take(6), len(queue)) == ([], 0)


def test_single_rows_do_not_keep_a_long_text_waiting() -> None:
    queue: EncoderQueue[int] = EncoderQueue()
    queue.put(-1, 64)
    for number in range(10):
        queue.put(number, 1)
    assert queue.take(4) == [0, 1, 2, 3, -1]


async def test_the_windows_of_a_text_are_counted_whatever_its_script(encoder: GatedEncoder) -> None:
    texts = ["👟" * 400 + str(number) for number in range(8)]  # a token each
    async with running(encoder, max_batch=4) as queries:
        asked = [asyncio.create_task(queries.encode_text(text)) for text in texts]
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        await until_waiting(queries, 7)
        encoder.gate.set()
        await asyncio.gather(*asked)
    assert encoder.batch_sizes == [1] * 8


async def test_equal_texts_are_encoded_once(encoder: GatedEncoder) -> None:
    async with running(encoder) as queries:
        asked = [asyncio.create_task(queries.encode_text("same")) for _ in range(3)]
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        encoder.gate.set()
        first, *others = await asyncio.gather(*asked)
        others.append(await queries.encode_text("same"))
    assert encoder.batch_sizes == [1]
    assert all(np.array_equal(first, other) for other in others)


async def test_the_text_asked_for_longest_ago_is_forgotten_first(encoder: GatedEncoder) -> None:
    encoder.gate.set()
    async with running(encoder, text_cache_entries=2) as queries:
        for text in ("a", "b", "a", "c", "a", "b"):  # c pushes b out, for a was asked for again
            await queries.encode_text(text)
    assert len(encoder.batch_sizes) == 4


async def test_each_gets_its_own_embedding(encoder: GatedEncoder) -> None:
    encoder.gate.set()
    texts = [f"text {n}" for n in range(20)]
    async with running(encoder) as queries:
        answers = await asyncio.gather(*(queries.encode_text(text) for text in texts))
        picture = await queries.encode_image(draw_picture(1))
    plain = HashEncoder()
    expected = plain.encode([plain.prepare_text(text) for text in texts])
    assert all(
        np.allclose(answer, rows[0], atol=1e-6) for answer, rows in zip(answers, expected, strict=True)
    )
    assert np.allclose(picture, plain.encode([plain.prepare_image(draw_picture(1))])[0][0], atol=1e-6)


async def test_a_request_that_goes_away_takes_nobody_with_it(encoder: GatedEncoder) -> None:
    async with running(encoder) as queries:
        leaving, staying = (asyncio.create_task(queries.encode_text("same")) for _ in range(2))
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        leaving.cancel()
        encoder.gate.set()
        assert (await staying).shape == (encoder.dimension,)
    assert leaving.cancelled()


async def test_a_bad_image_is_refused_and_the_next_one_encoded(encoder: GatedEncoder) -> None:
    encoder.gate.set()
    async with running(encoder) as queries:
        with pytest.raises(ContentRefused) as caught:
            await queries.encode_image(draw_picture(1)[:-30])
        assert caught.value.code == "truncated_image"
        assert (await queries.encode_image(draw_picture(1))).shape == (encoder.dimension,)


async def test_a_text_that_cannot_be_prepared_fails_alone_in_its_batch(encoder: GatedEncoder) -> None:
    async with running(encoder) as queries:
        first = asyncio.create_task(queries.encode_text("first"))
        assert await asyncio.to_thread(encoder.has_begun.wait, PATIENCE_SECONDS)
        blank, good = (asyncio.create_task(queries.encode_text(text)) for text in (" ", "good"))
        await until_waiting(queries, 2)
        encoder.gate.set()
        await asyncio.gather(first, good)
        with pytest.raises(ContentRefused):
            await blank
    assert encoder.batch_sizes == [1, 1]


async def test_long_texts_are_prepared_beside_the_encoder(encoder: GatedEncoder) -> None:
    encoder.gate.set()
    long = "many words " * 100
    async with running(encoder) as queries:
        found = await queries.encode_text(long)
    [rows] = encoder.encode([encoder.prepare_text(long)])
    assert np.allclose(found, rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0)), atol=1e-6)


async def test_a_fault_is_not_remembered_for_its_text() -> None:
    class FaultyFirst(GatedEncoder):
        def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
            rows = super().encode(prepared)
            if len(self.batch_sizes) == 1:
                raise RuntimeError("out of memory")
            return rows

    encoder = FaultyFirst()
    encoder.gate.set()
    async with running(encoder) as queries:
        with pytest.raises(RuntimeError):
            await queries.encode_text("red")
        assert (await queries.encode_text("red")).shape == (encoder.dimension,)


async def until_waiting(queries: QueryEncoder, number: int) -> None:
    async def look() -> None:
        while len(queries._waiting) < number:  # noqa: ASYNC110 (the encoder tells nobody)
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), PATIENCE_SECONDS)
