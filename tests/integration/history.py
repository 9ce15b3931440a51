"""What was published, and its fold, which the index must equal."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import numpy as np

from clip_index.content import Embeddings
from clip_index.fold import UNSEEN, IdState, fold
from clip_index.searching.searcher import Searcher
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from fakes.hash_encoder import HashEncoder, draw_picture
from schemas.codec import EncodedEvent, encode_event
from schemas.events import Content, DeleteEvent, ImageContent, TextContent, UploadEvent
from tests.consumer.running import upload
from tests.integration.fleet import PATIENCE_SECONDS, Fleet

_ENCODER = HashEncoder()


@dataclass
class History:
    """Publishes uploads, updates and deletes, with and without versions, some of them stale."""

    kafka: KafkaSettings
    topic: str
    seed: int = 0
    num_uploads: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    _states: dict[str, IdState] = field(default_factory=dict)
    _live: dict[str, Content] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def publish(self, num_events: int) -> None:
        """Publish the next events and wait until the log has them."""
        publisher = KafkaPublisher(self.kafka)
        events = [self._next_event() for _ in range(num_events)]
        encoded = [encode_event(event) for event in events]
        futures = [publisher.publish(self.topic, key=one.key, value=one.value) for one in encoded]
        assert publisher.flush(PATIENCE_SECONDS) == 0
        for event, future in zip(events, futures, strict=True):
            self._remember(event)
            place = future.result(0)
            self.ends[place.partition] = max(self.ends.get(place.partition, 0), place.next_offset)
        publisher.close()

    def next_encoded(self, num_events: int, *, is_published: bool) -> list[EncodedEvent]:
        """Return the next events, encoded, for the caller to publish."""
        events = [self._next_event() for _ in range(num_events)]
        for event in events if is_published else []:
            self._remember(event)
        return [encode_event(event) for event in events]

    def wait_until_covered(self, fleet: Fleet) -> None:
        fleet.wait(lambda: _covers(fleet.next_offsets(), self.ends))

    def wait_until_indexed(self, fleet: Fleet) -> None:
        """Wait until the index covers everything, then compare it with the fold."""
        self.wait_until_covered(fleet)
        searcher = fleet.searcher()
        assert searcher is not None
        self.assert_equals(searcher)

    def assert_equals(self, searcher: Searcher) -> None:
        """Assert that the index holds each live content once with its embedding, and nothing else."""
        found = {content_id: _embedding(searcher, content_id) for content_id in self._states}
        assert {name for name, embedding in found.items() if embedding is not None} == self._live.keys()
        wrong = [name for name, content in self._live.items() if not _is_of(found[name], content)]
        assert wrong == []
        num_rows = sum(sum(shard.num_contents.values()) for shard in searcher.shards.values())
        assert num_rows == len(self._live)

    def _next_event(self) -> UploadEvent | DeleteEvent:
        number = self.num_uploads
        content_id = f"c{self._random.randrange(number + 10)}"
        version = self._random.choice([None, None, number, self._random.randrange(number + 1)])
        if self._random.random() < 0.15:
            return DeleteEvent(f"event-{content_id}", content_id, "tests", _now(), version)
        self.num_uploads += 1
        is_picture = self._random.random() < 0.15
        content = ImageContent(draw_picture(number)) if is_picture else TextContent(f"text number {number}")
        return replace(upload(content_id, content), version=version, occurred_at=_now())

    def _remember(self, event: UploadEvent | DeleteEvent) -> None:
        content = event.content if isinstance(event, UploadEvent) else None
        before = self._states.get(event.content_id, UNSEEN)
        after = fold(before, version=event.version, is_delete=content is None)
        if after is None:
            return
        self._states[event.content_id] = after
        self._live.pop(event.content_id, None)
        if content is not None:
            self._live[event.content_id] = content


def _now() -> datetime:
    """Return the present time in whole milliseconds."""
    now = datetime.now(timezone.utc)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _covers(next_offsets: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(next_offsets.get(partition, 0) >= end for partition, end in ends.items())


def _embedding(searcher: Searcher, content_id: str) -> Embeddings | None:
    location = searcher.find(content_id)
    return None if location is None else searcher.embeddings(location)


def _is_of(embedding: Embeddings | None, content: Content) -> bool:
    if embedding is None:
        return False
    if isinstance(content, ImageContent):
        [expected] = _ENCODER.encode([_ENCODER.prepare_image(content.data)])
    else:
        assert isinstance(content, TextContent)
        [expected] = _ENCODER.encode([_ENCODER.prepare_text(content.text)])
    return bool(np.allclose(embedding, expected, atol=2e-3))
