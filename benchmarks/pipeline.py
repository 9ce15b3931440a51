"""Uploads a second from Kafka to committed rows, against the machine's limit and against a naive loop."""

from __future__ import annotations

import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import torch
from confluent_kafka import Consumer, TopicPartition
from PIL import Image

from benchmarks.clients.photographs import crop_jpegs, with_other_bytes
from benchmarks.clients.uploads import encode_upload
from benchmarks.clip_models import NaiveClip, write_model
from benchmarks.data import DIMENSION, NUM_PARTITIONS
from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio, seconds_of
from benchmarks.indexes.commits import CommitWatch, burst_per_second
from benchmarks.processes.services import (
    Program,
    Running,
    encoder_environment,
    open_site,
    running,
    running_broker,
)
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from event_log.kafka.publisher import KafkaPublisher
from schemas.codec import EventDecoder
from schemas.events import ImageContent, UploadEvent

NAME = "pipeline"
MIN_OF_LIMIT, MIN_OF_NAIVE = 0.85, 4.5
_SIZES = {"320": (320, 240), "1024": (1024, 768)}
_BATCH, _PATIENCE_SECONDS = 32, 60.0


@dataclass(slots=True)
class Rates:
    """Uploads a second of each round."""

    ours: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)


def measure(*, quick: bool) -> Figure:
    """Measure both sides with ViT-B-32 (random weights) and JPEGs of 320 × 240 and 1024 × 768."""
    num_uploads, num_naive, rounds = (64, 32, 1) if quick else (192, 64, MIN_ROUNDS)
    rates = {name: Rates() for name in _SIZES}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = write_model(directory, quick=quick)
        encoder, naive_clip = load_encoder(settings), _load_naive(settings)
        kafka = stack.enter_context(running_broker(directory))
        site = open_site(kafka, directory, "pictures")
        program = Program(query_service=None, environment=encoder_environment(settings))
        services = stack.enter_context(running(site, program))
        publisher = stack.enter_context(closing(KafkaPublisher(kafka)))
        naive = stack.enter_context(closing(NaiveLoop(naive_clip, kafka.bootstrap_servers, site.topic)))
        stream = Stream(services, publisher)
        pictures = {name: crop_jpegs(_BATCH * 2, *size) for name, size in _SIZES.items()}
        for _ in range(rounds + 1):
            for name, found in rates.items():
                found.limit.append(_limit(encoder, pictures[name]))
                found.ours.append(stream.run(pictures[name], num_uploads))
                found.naive.append(naive.run(num_uploads, num_encoded=num_naive))
    return _figure(rates)


def _load_naive(settings: EncoderSettings) -> NaiveClip:
    if settings.pretrained is None:
        return NaiveClip(f"local-dir:{settings.model}")
    return NaiveClip(settings.model, settings.pretrained)


def _limit(encoder: Encoder, pictures: Sequence[bytes]) -> float:
    """Return 1 ÷ (encode + decode ÷ cores), from one encoded batch and as many pictures decoded singly."""
    batch = pictures[:_BATCH]
    prepared = [encoder.prepare_image(picture) for picture in batch]
    decode = seconds_of(lambda: [encoder.prepare_image(picture) for picture in batch])
    encode = min(seconds_of(lambda: encoder.encode(prepared)) for _ in range(2))
    return _BATCH / (encode + decode / len(os.sched_getaffinity(0)))


class Stream:
    """Sends uploads through the running consumer."""

    def __init__(self, services: Running, publisher: KafkaPublisher) -> None:
        self._services = services
        self._publisher = publisher
        self._numbers = itertools.count()

    def run(self, pictures: Sequence[bytes], num_uploads: int) -> float:
        """Publish all uploads at once, each of which is encoded.

        Return the uploads a second from the first commit to the last.
        """
        watch = CommitWatch(self._services)
        before = watch.look().num_records
        for picture in itertools.islice(itertools.cycle(pictures), num_uploads):
            number = next(self._numbers)
            event = encode_upload(f"upload-{number}", ImageContent(with_other_bytes(picture, number)))
            self._publisher.publish(self._services.site.topic, key=event.key, value=event.value)
        return burst_per_second(watch.follow(before + num_uploads))


class NaiveLoop:
    """What a simple CLIP service does: poll, Pillow, open_clip's preprocess, eager fp32, a flat index."""

    def __init__(self, clip: NaiveClip, bootstrap_servers: str, topic: str) -> None:
        self._clip = clip
        self._decoder = EventDecoder()
        self._index = faiss.IndexFlatIP(DIMENSION)
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": "naive", "enable.auto.commit": False}
        )
        self._consumer.assign([TopicPartition(topic, p, 0) for p in range(NUM_PARTITIONS)])

    def run(self, num_uploads: int, *, num_encoded: int) -> float:
        """Handle the first `num_encoded` of the new records and skip the others. Return uploads a second."""
        messages = self._poll(num_uploads)
        first = next(messages)
        began = time.perf_counter()
        handled = [first, *itertools.islice(messages, num_encoded - 1)]
        for start in range(0, num_encoded, _BATCH):
            pixels = [self._pixels(message) for message in handled[start : start + _BATCH]]
            self._index.add(self._clip.encode_images(torch.stack(pixels)))
        seconds = time.perf_counter() - began
        for _ in messages:
            pass
        return num_encoded / seconds

    def close(self) -> None:
        self._consumer.close()

    def _poll(self, num_messages: int) -> Iterator[Any]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while num_messages:
            message = self._consumer.poll(0.1)
            if message is not None:
                num_messages -= 1
                yield message
            elif time.monotonic() > deadline:
                raise TimeoutError("the naive loop does not get the records")

    def _pixels(self, message: Any) -> torch.Tensor:
        event = self._decoder.decode(
            key=message.key(), value=message.value(), timestamp_ms=message.timestamp()[1]
        )
        assert isinstance(event, UploadEvent)
        assert isinstance(event.content, ImageContent)
        return self._clip.preprocess(Image.open(io.BytesIO(event.content.data)).convert("RGB"))


def _figure(rates: dict[str, Rates]) -> Figure:
    """Build the figure. The first round is the warm-up and does not count."""
    of_limit = {name: median_ratio(found.ours[1:], found.limit[1:]) for name, found in rates.items()}
    of_naive = {name: median_ratio(found.ours[1:], found.naive[1:]) for name, found in rates.items()}
    value = {f"of_limit_{name}": round(ratio.median, 3) for name, ratio in of_limit.items()}
    value["of_naive_1024"] = round(of_naive["1024"].median, 2)
    holds = (
        all(ratio.median >= MIN_OF_LIMIT for ratio in of_limit.values())
        and of_naive["1024"].median >= MIN_OF_NAIVE
    )
    return Figure(
        NAME,
        value,
        f"≥ {MIN_OF_LIMIT} of the limit at both sizes; ≥ {MIN_OF_NAIVE} × naive at 1024 × 768",
        holds,
        {
            "of_limit": {name: ratio.as_dict() for name, ratio in of_limit.items()},
            "of_naive": {name: ratio.as_dict() for name, ratio in of_naive.items()},
            "uploads_per_second": {
                name: round(statistics.median(found.ours[1:]), 1) for name, found in rates.items()
            },
            "encoder": "ViT-B-32, random weights",
        },
        [("picture", "÷ 1 / (encode + decode ÷ cores)", "÷ the naive loop")]
        + [(name, str(of_limit[name]), str(of_naive[name])) for name in rates],
    )
