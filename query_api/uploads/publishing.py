"""Publish events to the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from event_log.errors import (
    EventLogError,
    RecordTooLarge,
    RegistryMisconfigured,
    RegistryUnavailable,
    TopicMissing,
)
from event_log.publisher import Publisher
from event_log.records import Delivery, Headers
from query_api.encoding.query_encoder import QueryEncoder
from query_api.errors import ApiError
from query_api.serving.workers import Workers
from query_api.telemetry.stages import Stages
from query_api.telemetry.tracing import RequestTrace
from query_api.uploads.large_contents import LargeContents
from schemas.codec import EncodedEvent, encode_event
from schemas.events import Event, ImageContent, TextContent, UploadEvent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """Where uploads go. `timeout_seconds` bounds the wait for the log's acknowledgement."""

    topic: str = "content-uploads"
    timeout_seconds: float = 10.0
    large_contents: LargeContents = field(default_factory=LargeContents)
    encode: Callable[[Event], EncodedEvent] = encode_event


class EventPublisher:
    """Publishes events for the event loop. Without a `Publisher`, uploads are disabled."""

    def __init__(self, publisher: Publisher | None, workers: Workers, settings: PublishSettings) -> None:
        self._publisher = publisher
        self._workers = workers
        self._settings = settings

    def require_publisher(self) -> Publisher:
        """Return the publisher, or raise `ApiError` (publishing_off)."""
        if self._publisher is None:
            raise ApiError("publishing_off", "uploads are disabled in this service")
        return self._publisher

    @property
    def topic(self) -> str:
        return self._settings.topic

    async def publish(self, event: Event, headers: Headers = ()) -> Delivery:
        """Publish a valid event and return its position in the log, or raise `ApiError`.

        `headers` go into the record beside those of the event.

        After `log_unavailable` the event may be in the log all the same. Publishing it again is harmless.
        """
        publisher = self.require_publisher()
        with self._answering_failures():
            queued = await self._workers.run(self._queue, publisher, event, headers)
            return await asyncio.wait_for(asyncio.wrap_future(queued), self._settings.timeout_seconds)

    async def publish_all(self, events: Sequence[Event], trace: RequestTrace) -> list[Delivery | ApiError]:
        """Publish events in this order, and return for each its position in the log, or what prevented it.

        Each record carries the context of the request's trace.
        """
        publisher = self.require_publisher()
        records = [trace.begin_sending(self.topic) for _ in events]
        headers = [record.headers for record in records]
        queued = await self._workers.run(self._queue_all, publisher, events, headers)
        results = list(await asyncio.gather(*map(self._acknowledged, queued)))
        for record, result in zip(records, results, strict=True):
            if isinstance(result, ApiError):
                record.failed(result)
            else:
                record.delivered(result)
        return results

    def _queue_all(
        self, publisher: Publisher, events: Sequence[Event], headers: Sequence[Headers]
    ) -> list[Future[Delivery] | ApiError]:
        queued: list[Future[Delivery] | ApiError] = []
        for event, headers_of_record in zip(events, headers, strict=True):
            try:
                with self._answering_failures():
                    queued.append(self._queue(publisher, event, headers_of_record))
            except ApiError as error:
                queued.append(error)
        return queued

    async def _acknowledged(self, queued: Future[Delivery] | ApiError) -> Delivery | ApiError:
        if isinstance(queued, ApiError):
            return queued
        try:
            with self._answering_failures():
                return await asyncio.wait_for(asyncio.wrap_future(queued), self._settings.timeout_seconds)
        except ApiError as error:
            return error

    @contextmanager
    def _answering_failures(self) -> Iterator[None]:
        """Turn whatever prevents an event from being published into an `ApiError`."""
        try:
            yield
        except RecordTooLarge as error:
            raise ApiError("content_too_large", f"the log takes no record of this size: {error}") from error
        except asyncio.TimeoutError as error:
            raise _unavailable(
                f"the log did not acknowledge within {self._settings.timeout_seconds:g} s"
            ) from error
        except TopicMissing as error:
            raise _unavailable(str(error)) from error
        except OSError as error:  # of the directory for large contents
            log.error("content not stored", error=str(error))
            raise _unavailable("the content cannot be stored at the moment") from error
        except (RegistryUnavailable, RegistryMisconfigured) as error:
            log.error("schema not registered", error=str(error))
            raise _unavailable("the schema registry cannot be used at the moment") from error
        except EventLogError as error:
            raise _unavailable("the log takes no events at the moment") from error

    def _queue(self, publisher: Publisher, event: Event, headers: Headers) -> Future[Delivery]:
        """Store a large content, encode the event and queue it. Waits while the publisher's queue is full."""
        if isinstance(event, UploadEvent):
            event = self._settings.large_contents.refer(event)
        record = self._settings.encode(event)
        return publisher.publish(
            self._settings.topic, key=record.key, value=record.value, headers=(*record.headers, *headers)
        )


EVENT_PUBLISHER = web.AppKey("event_publisher", EventPublisher)


async def publish_event(
    event: Event, stages: Stages, *, trace: RequestTrace, encoder: QueryEncoder, publisher: EventPublisher
) -> Delivery:
    """Check that the event's content can be encoded, and publish the event; `ApiError`.

    The record carries the context of the request's trace.
    """
    with stages.measure("prepare"):
        await check_content(encoder, event)
    with stages.measure("publish"), trace.sending(publisher.topic) as record:
        delivery = await publisher.publish(event, record.headers)
        record.delivered(delivery)
        return delivery


async def check_content(encoder: QueryEncoder, event: Event) -> None:
    """Raise `ContentRefused` if the event's content can never be encoded."""
    if not isinstance(event, UploadEvent):
        return
    if isinstance(event.content, TextContent):
        await encoder.check(event.content.text)
    elif isinstance(event.content, ImageContent):
        await encoder.check(event.content.data)


def _unavailable(message: str) -> ApiError:
    return ApiError("log_unavailable", message, headers={"Retry-After": "1"})
