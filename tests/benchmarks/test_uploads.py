"""Figures that let the consumer encode send no bytes twice, because it encodes them once."""

from __future__ import annotations

import io
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import freshness, pipeline
from benchmarks.clients.photographs import crop_jpegs, with_other_bytes
from event_log.kafka.publisher import Delivery
from schemas.codec import EventDecoder
from schemas.events import ImageContent, UploadEvent


class KeepingPublisher:
    """Keeps the pictures in place of publishing them."""

    def __init__(self) -> None:
        self.pictures: list[bytes] = []

    def publish(self, _topic: str, *, key: bytes, value: bytes) -> Future[Delivery]:
        event = EventDecoder().decode(key=key, value=value, timestamp_ms=0)
        assert isinstance(event, UploadEvent)
        assert isinstance(event.content, ImageContent)
        self.pictures.append(event.content.data)
        return Future()


class IdleWatch:
    """Looks at a consumer that does nothing."""

    def __init__(self, _services: object) -> None:
        pass

    def look(self) -> SimpleNamespace:
        return SimpleNamespace(num_records=0)

    def follow(self, _num_records: int) -> list[object]:
        return []


SERVICES: Any = SimpleNamespace(site=SimpleNamespace(topic="uploads"))


def test_the_pipeline_sends_no_picture_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CommitWatch", IdleWatch)
    monkeypatch.setattr(pipeline, "burst_per_second", lambda _: 0.0)
    publisher: Any = KeepingPublisher()
    stream = pipeline.Stream(SERVICES, publisher)
    pictures = crop_jpegs(3, 32, 32)
    for _ in range(2):
        stream.run(pictures, 10)
    assert len(set(publisher.pictures)) == len(publisher.pictures) == 20


def test_freshness_sends_no_picture_twice() -> None:
    publisher: Any = KeepingPublisher()
    load = freshness.Load(SERVICES, publisher, crop_jpegs(3, 32, 32))
    for _ in range(10):
        load._publish(freshness.Waiting())
    assert len(set(publisher.pictures)) == len(publisher.pictures) == 10


def test_other_bytes_are_the_same_picture() -> None:
    [jpeg] = crop_jpegs(1, 32, 32)
    other = with_other_bytes(jpeg, 7)
    assert other not in {jpeg, with_other_bytes(jpeg, 8)}
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in (jpeg, other)]
    np.testing.assert_array_equal(*pixels)
