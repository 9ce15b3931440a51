"""Queries into embeddings: encoded together, equal texts once, long ones and pictures prepared beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from clip_index.content import Embeddings, unit_mean
from clip_index.encoder.protocol import Encoder, EncoderFingerprint, Prepared
from clip_index.errors import BadContent
from clip_index.storage.bounded_cache import BoundedCache
from query_api.encoding.encoder_queue import EncoderQueue
from query_api.errors import ContentRefused
from query_api.gathering import Gathering
from query_api.serving.workers import Workers
from query_api.telemetry.metrics import Metrics

_Finish: TypeAlias = Callable[[Embeddings], Embeddings]
_SHORT_TEXT_BYTES = 256  # cost less to prepare than to hand to a worker and back; up to five windows
_LOOK_SECONDS = 0.001  # how often to look who has come; as long must nothing be under way


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One content to encode; `finish` makes what is wanted of its windows' embeddings."""

    prepare: Callable[[], Prepared]
    finish: _Finish


_Waiting: TypeAlias = tuple[_Wanted, "asyncio.Future[Embeddings]"]


@dataclass(frozen=True, slots=True)
class QueryEncoderSettings:
    """`max_batch` bounds how many queries (a long text's windows) are encoded together.

    `text_cache_entries` bounds the known texts.
    `max_gather_seconds` bounds how long queries wait for others after a batch of several.
    """

    max_batch: int = 32
    text_cache_entries: int = 10_000
    max_gather_seconds: float = 0.03


class QueryEncoder:
    """The encoder as the event loop sees it.

    One thread encodes. While it is idle a query starts at once; while it works, queries
    collect and go in one batch as soon as it is free. After a batch of several they wait some
    milliseconds more for those that are being prepared or answered (`Gathering`).
    """

    def __init__(
        self, encoder: Encoder, workers: Workers, metrics: Metrics, settings: QueryEncoderSettings
    ) -> None:
        self._encoder = encoder
        self._workers = workers
        self._metrics = metrics
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._waiting: EncoderQueue[_Waiting] = EncoderQueue()
        self._has_waiting = asyncio.Event()
        self._texts: BoundedCache[str, Embeddings] = BoundedCache(settings.text_cache_entries)
        self._computing: dict[str, asyncio.Task[Embeddings]] = {}
        self._task: asyncio.Task[None] | None = None
        self._gathering = Gathering()

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self._encoder.fingerprint

    @property
    def is_running(self) -> bool:
        """Whether the loop that feeds the encoder is alive."""
        return self._task is not None and not self._task.done()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Encode what is asked for until the context ends."""
        self._task = asyncio.create_task(self._encode_forever(), name="query encoder")
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def encode_text(self, text: str) -> Embeddings:
        """Return the embedding of a query text, shape (dimension,); `ContentRefused` if it has none.

        A text of several windows is asked by the unit mean of their embeddings.
        """
        known = self._texts.find(text)
        if known is not None:
            self._metrics.text_cache_lookups.labels("hit").inc()
            return known
        task = self._computing.get(text)
        self._metrics.text_cache_lookups.labels("joined" if task else "miss").inc()
        if task is None:
            task = self._computing[text] = asyncio.create_task(self._compute_text(text))
        return await asyncio.shield(task)  # others may wait for it when this request goes away

    async def encode_image(self, data: bytes) -> Embeddings:
        """Return the embedding of an image file, shape (dimension,); `ContentRefused` if it has none."""
        prepared = await self._prepare(data)
        return await self._encode(lambda: prepared, unit_mean, prepared.num_rows)

    async def encode_content(self, content: str | bytes) -> Embeddings:
        """Return all embeddings of a text or an image file, (windows, dimension); an image has one.

        `ContentRefused` if it has none.
        """
        prepared = await self._prepare(content)
        return await self._encode(lambda: prepared, _all_windows, prepared.num_rows)

    async def check(self, content: str | bytes) -> None:
        """Raise `ContentRefused` for a text or image file that the consumer could not encode either."""
        await self._prepare(content)

    async def encode_text_afresh(self, text: str) -> Embeddings:
        """Return the embedding of a text without asking the cache: for a probe of the encoder itself."""
        if not _is_short(text):
            prepared = await self._prepare(text)
            return await self._encode(lambda: prepared, unit_mean, prepared.num_rows)
        return await self._encode(partial(self._encoder.prepare_text, text), unit_mean)

    async def _compute_text(self, text: str) -> Embeddings:
        try:
            embedding = await self.encode_text_afresh(text)
            self._texts.keep(text, embedding)
            return embedding
        finally:
            del self._computing[text]

    async def _prepare(self, content: str | bytes) -> Prepared:
        """Prepare in a worker what would keep the encoder waiting."""
        prepare: Callable[[Any], Prepared] = (
            self._encoder.prepare_text if isinstance(content, str) else self._encoder.prepare_image
        )
        try:
            return await self._workers.run(prepare, content)
        except BadContent as error:
            raise ContentRefused(error) from error

    async def _encode(
        self, prepare: Callable[[], Prepared], finish: _Finish, num_rows: int = 1
    ) -> Embeddings:
        future: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
        self._waiting.put((_Wanted(prepare, finish), future), num_rows)
        self._has_waiting.set()
        try:
            return await future
        except BadContent as error:
            raise ContentRefused(error) from error

    async def _encode_forever(self) -> None:
        while True:
            await self._has_waiting.wait()
            await self._gather()
            batch = self._take_batch()
            if batch:
                self._metrics.encoded_batch_size.observe(len(batch))
                await self._encode_batch(batch)

    async def _gather(self) -> None:
        is_quiet = False
        while not self._gathering.is_over(len(self._waiting), time.monotonic(), is_quiet=is_quiet):
            was_busy = self._workers.is_busy
            await asyncio.sleep(_LOOK_SECONDS)
            is_quiet = not (was_busy or self._workers.is_busy)

    def _take_batch(self) -> list[_Waiting]:
        taken = self._waiting.take(self._settings.max_batch)
        if not self._waiting:
            self._has_waiting.clear()
        return [item for item in taken if not item[1].done()]  # done: its request went away

    async def _encode_batch(self, batch: Sequence[_Waiting]) -> None:
        wanted = [one for one, _ in batch]
        loop, began = asyncio.get_running_loop(), time.monotonic()
        [outcome] = await asyncio.gather(
            loop.run_in_executor(self._thread, _encode_each, self._encoder, wanted), return_exceptions=True
        )
        self._gathering = Gathering.after(
            len(batch),
            len(self._waiting),
            began=began,
            ended=time.monotonic(),
            max_seconds=self._settings.max_gather_seconds,
        )
        _answer_each(batch, [outcome] * len(batch) if isinstance(outcome, BaseException) else outcome)


def _encode_each(encoder: Encoder, wanted: Sequence[_Wanted]) -> list[Embeddings | Exception]:
    """Return what is wanted of each; what cannot be prepared fails alone.

    Means are taken here: numpy lets go of Python's lock for them, and the event loop would have to
    wait for it again behind the workers, once for each query.
    """
    prepared = [_prepared_or_error(one.prepare) for one in wanted]
    good = [item for item in prepared if not isinstance(item, Exception)]
    encoded = iter(encoder.encode(good) if good else ())
    return [
        item if isinstance(item, Exception) else one.finish(next(encoded))
        for one, item in zip(wanted, prepared, strict=True)
    ]


def _is_short(text: str) -> bool:
    """In bytes: of those a token has one or more, of characters (Chinese ones) it may have a third."""
    return len(text) <= _SHORT_TEXT_BYTES and len(text.encode("utf-8", "surrogatepass")) <= _SHORT_TEXT_BYTES


def _all_windows(embeddings: Embeddings) -> Embeddings:
    return embeddings


def _prepared_or_error(call: Callable[[], Prepared]) -> Prepared | Exception:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is raised where this query was asked)
        return error


def _answer_each(batch: Sequence[_Waiting], outcomes: Sequence[Embeddings | BaseException]) -> None:
    for (_, future), outcome in zip(batch, outcomes, strict=True):
        if future.done():  # its request went away
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
