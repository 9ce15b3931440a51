"""Queries into embeddings. Queries are encoded together, equal texts once; workers prepare the large ones."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from clip_index.content import Embeddings, unit_mean
from clip_index.encoder.canary import number_format_of
from clip_index.encoder.protocol import Encoder, EncoderFingerprint, Prepared, PreparedText
from clip_index.errors import BadContent
from clip_index.storage.bounded_cache import BoundedCache
from query_api.encoding.encoder_batch import ContentToEncode, Finish, all_windows, encode_each
from query_api.encoding.encoder_queue import BatchPause, EncoderQueue
from query_api.errors import ContentRefused
from query_api.serving.futures import settle_each
from query_api.serving.workers import Workers
from query_api.telemetry.metrics import Metrics

_SHORT_TEXT_BYTES = 256  # up to five windows: preparing them costs less than a worker hop
_LOOK_SECONDS = 0.001  # how often a pause looks for queries, and how long it must find no work to be quiet

_Waiting: TypeAlias = tuple[ContentToEncode, "asyncio.Future[Embeddings]"]


@dataclass(frozen=True, slots=True)
class QueryEncoderSettings:
    """`max_batch` bounds how many queries (windows of a long text) are encoded together.

    `text_cache_entries` bounds the texts whose embeddings are kept.
    `max_pause_seconds` bounds how long queries wait for others after a batch of several.
    """

    max_batch: int = 32
    text_cache_entries: int = 10_000
    max_pause_seconds: float = 0.03


class QueryEncoder:
    """The encoder as the event loop sees it.

    One thread encodes. While it is idle, a query starts at once. While it works, queries collect,
    and they are the next batch as soon as it is free. After a batch of several queries the next one
    waits some milliseconds more, for queries that are about to come (`BatchPause`).
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
        self._texts: BoundedCache[bytes, Embeddings] = BoundedCache(
            settings.text_cache_entries, size_of=lambda embedding: embedding.nbytes
        )
        self._computing: dict[bytes, asyncio.Task[Embeddings]] = {}
        self._task: asyncio.Task[None] | None = None
        self._pause = BatchPause()
        self._encoding_since: float | None = None

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self._encoder.fingerprint

    @property
    def number_format(self) -> str | None:
        """The number format of the encoder's weights, None if it does not tell."""
        return number_format_of(self._encoder)

    @property
    def is_running(self) -> bool:
        """Whether the loop that feeds the encoder is alive. It may still hang: `seconds_encoding`."""
        return self._task is not None and not self._task.done()

    @property
    def seconds_encoding(self) -> float:
        """For how long the present batch has been in the encoder; 0 between two batches."""
        return 0.0 if self._encoding_since is None else time.monotonic() - self._encoding_since

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Encode queries until the context ends."""
        self._task = asyncio.create_task(self._encode_forever(), name="query encoder")
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None  # an ended task refers to its loop's frame, and that one to this object
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def encode_text(self, text: str) -> Embeddings:
        """Return the embedding of a query text, shape (dimension,); `ContentRefused` if it has none.

        The embedding of a text of several windows is the unit mean of theirs.
        """
        key = _key_of(text)
        known = self._texts.find(key)
        if known is not None:
            self._metrics.text_cache_lookups.labels("hit").inc()
            return known
        task = self._computing.get(key)
        self._metrics.text_cache_lookups.labels("joined" if task else "miss").inc()
        if task is None:
            task = self._computing[key] = asyncio.create_task(self._compute_text(text, key))
        return await asyncio.shield(task)  # if this request goes away, others may still wait

    async def encode_image(self, data: bytes) -> Embeddings:
        """Return one embedding of an image file, shape (dimension,); `ContentRefused` if it has none.

        That of a wide picture is the unit mean of its crops. A search takes `encode_content`.
        """
        prepared = await self._prepare_whole(data)
        return await self._encode(lambda: prepared, unit_mean, prepared.num_rows)

    async def encode_content(self, content: str | bytes) -> Embeddings:
        """Return all embeddings of a text or an image file, (windows or crops, dimension).

        Raises `ContentRefused` if it has none.
        """
        prepared = await self._prepare_whole(content)
        return await self._encode(lambda: prepared, all_windows, prepared.num_rows)

    async def check(self, content: str | bytes) -> None:
        """Raise `ContentRefused` for a text or image file that the consumer could not encode either."""
        await self._prepare(content)

    async def encode_text_afresh(self, text: str) -> Embeddings:
        """Return the embedding of a text from the encoder itself, not from the cache."""
        if not _is_short(text):
            prepared = await self._prepare_whole(text)
            return await self._encode(lambda: prepared, unit_mean, prepared.num_rows)
        return await self._encode(partial(self._encoder.prepare_text, text), unit_mean)

    async def _compute_text(self, text: str, key: bytes) -> Embeddings:
        try:
            embedding = await self.encode_text_afresh(text)
            self._texts.keep(key, embedding)
            return embedding
        finally:
            del self._computing[key]

    async def _prepare_whole(self, content: str | bytes) -> Prepared:
        """Prepare a query. One that does not fit is refused: its client can choose what to leave out."""
        prepared = await self._prepare(content)
        if isinstance(prepared, PreparedText) and prepared.is_truncated:
            num_windows, length = prepared.tokens.shape
            detail = f"it has more tokens than {num_windows} windows of {length} hold"
            raise ContentRefused(BadContent("text_too_long", detail))
        return prepared

    async def _prepare(self, content: str | bytes) -> Prepared:
        """Prepare a content in a worker, so that the encoder does not wait for it."""
        prepare: Callable[[Any], Prepared] = (
            self._encoder.prepare_text if isinstance(content, str) else self._encoder.prepare_image
        )
        try:
            return await self._workers.run(prepare, content)
        except BadContent as error:
            raise ContentRefused(error) from error

    async def _encode(self, prepare: Callable[[], Prepared], finish: Finish, num_rows: int = 1) -> Embeddings:
        future: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
        self._waiting.put((ContentToEncode(prepare, finish), future), num_rows)
        self._metrics.encoder_queue_length.set(len(self._waiting))
        self._has_waiting.set()
        try:
            return await future
        except BadContent as error:
            raise ContentRefused(error) from error

    async def _encode_forever(self) -> None:
        while True:
            await self._has_waiting.wait()
            await self._wait_for_pause()
            batch = self._take_batch()
            if batch:
                self._metrics.encoded_batch_size.observe(len(batch))
                await self._encode_batch(batch)

    async def _wait_for_pause(self) -> None:
        is_quiet = False
        while not self._pause.is_over(len(self._waiting), time.monotonic(), is_quiet=is_quiet):
            was_busy = self._workers.is_busy
            await asyncio.sleep(_LOOK_SECONDS)
            is_quiet = not (was_busy or self._workers.is_busy)

    def _take_batch(self) -> list[_Waiting]:
        taken = self._waiting.take(self._settings.max_batch)
        self._metrics.encoder_queue_length.set(len(self._waiting))
        if not self._waiting:
            self._has_waiting.clear()
        return [item for item in taken if not item[1].done()]  # it is done if its request went away

    async def _encode_batch(self, batch: Sequence[_Waiting]) -> None:
        contents, futures = [one for one, _ in batch], [future for _, future in batch]
        loop, began = asyncio.get_running_loop(), time.monotonic()
        self._encoding_since = began
        [outcome] = await asyncio.gather(
            loop.run_in_executor(self._thread, encode_each, self._encoder, contents), return_exceptions=True
        )
        self._encoding_since = None
        self._pause = BatchPause.after(
            len(batch),
            len(self._waiting),
            began=began,
            ended=time.monotonic(),
            max_seconds=self._settings.max_pause_seconds,
        )
        settle_each(futures, [outcome] * len(batch) if isinstance(outcome, BaseException) else outcome)


def _key_of(text: str) -> bytes:
    """Return what the cache knows a text by: a digest, so that long texts take no memory there."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _is_short(text: str) -> bool:
    """Count in bytes: a token has one byte or more, but a Chinese character may be three tokens."""
    return len(text) <= _SHORT_TEXT_BYTES and len(text.encode("utf-8", "surrogatepass")) <= _SHORT_TEXT_BYTES
