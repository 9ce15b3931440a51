"""Events into the log, and what became of them in the index."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import structlog
from aiohttp import web

from event_log.errors import EventLogError, RecordTooLarge, TopicMissing
from event_log.publisher import Publisher
from event_log.records import Delivery
from query_api.errors import ApiError
from query_api.serving.engine import Snapshot
from query_api.serving.workers import Workers
from query_api.uploads.large_contents import LargeContents
from schemas.codec import encode_event
from schemas.events import DeleteEvent, Event, UploadEvent

log = structlog.get_logger()

Fate: TypeAlias = Literal["applied", "superseded", "set_aside"]
RETRY_AFTER = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """Where uploads go; `timeout_seconds` bounds the wait for the log's acknowledgement."""

    topic: str = "content-uploads"
    timeout_seconds: float = 10.0
    large_contents: LargeContents = field(default_factory=LargeContents)


class Uploads:
    """The log as the event loop sees it; without a publisher nothing can be published."""

    def __init__(self, publisher: Publisher | None, workers: Workers, settings: PublishSettings) -> None:
        self._publisher = publisher
        self._workers = workers
        self._settings = settings

    def require_publisher(self) -> Publisher:
        """Return the publisher, or raise `ApiError` (publishing_off)."""
        if self._publisher is None:
            raise ApiError("publishing_off", "this service takes no uploads")
        return self._publisher

    async def publish(self, event: Event) -> Delivery:
        """Publish a valid event and return where it lies in the log, or raise `ApiError`.

        After `log_unavailable` the event may lie in the log all the same: publishing it again does no harm.
        """
        publisher = self.require_publisher()
        try:
            queued = await self._workers.run(self._queue, publisher, event)
            return await asyncio.wait_for(asyncio.wrap_future(queued), self._settings.timeout_seconds)
        except RecordTooLarge as error:
            raise ApiError("content_too_large", f"the log takes no record of this size: {error}") from error
        except asyncio.TimeoutError as error:
            message = f"the log did not acknowledge within {self._settings.timeout_seconds:g} s"
            raise ApiError("log_unavailable", message, headers=RETRY_AFTER) from error
        except TopicMissing as error:
            raise ApiError("log_unavailable", str(error), headers=RETRY_AFTER) from error
        except OSError as error:  # of the directory for large contents
            log.error("content not stored", error=str(error))
            raise ApiError(
                "log_unavailable", "the content cannot be stored now", headers=RETRY_AFTER
            ) from error
        except EventLogError as error:
            raise ApiError("log_unavailable", "the log takes no events now", headers=RETRY_AFTER) from error

    def _queue(self, publisher: Publisher, event: Event) -> Future[Delivery]:
        """Store what is large, encode, hand over; waits while the publisher's queue is full."""
        if isinstance(event, UploadEvent):
            event = self._settings.large_contents.refer(event)
        record = encode_event(event)
        return publisher.publish(
            self._settings.topic, key=record.key, value=record.value, headers=record.headers
        )


def shard_of(delivery: Delivery) -> str:
    return f"{delivery.topic}-{delivery.partition}"


def fate_of(searcher: Snapshot, event: Event, delivery: Delivery) -> Fate:
    """Say what became of an event that the searcher covers.

    `set_aside` means that its content is not in the index and nothing in the index says why:
    a dead letter, or an upload without a version that was deleted right after. Blocking.
    """
    location = searcher.find(event.content_id)
    if location is None and isinstance(event, DeleteEvent):
        return "applied"
    if location is not None:
        [stored] = searcher.read_many([location], ())
        offset = stored.offset
        if (location.shard, offset) == (shard_of(delivery), delivery.offset):
            return "applied"
        if location.shard == shard_of(delivery) and offset > delivery.offset:
            return "superseded"
    floor = searcher.floor(event.content_id)
    is_below = event.version is not None and floor is not None and event.version <= floor
    return "superseded" if is_below else "set_aside"


UPLOADS = web.AppKey("uploads", Uploads)
