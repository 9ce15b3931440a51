"""Records a second from the broker to committed rows without encoding, against the real encoder's rate.

A loop that only reads is measured beside it. Nobody waits for that one, so it has no target.
"""

from __future__ import annotations

import io
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, TopicPartition

from benchmarks.clients.photographs import crop_images
from benchmarks.clients.uploads import encode_upload
from benchmarks.clip_models import write_model
from benchmarks.data import NUM_PARTITIONS
from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio, seconds_of
from benchmarks.indexes.commits import CommitWatch, burst_per_second
from benchmarks.processes.services import Program, Running, open_site, running, running_broker
from clip_index.encoder.open_clip import load_encoder
from event_log.kafka.publisher import KafkaPublisher
from schemas.avro.format import FINGERPRINT_BYTES, MARKER, current_schema
from schemas.events import ImageContent

NAME = "intake"
MIN_TIMES = 20.0
_BATCH, _PATIENCE_SECONDS = 32, 60.0


@dataclass(slots=True)
class Rates:
    """Records a second of each round: to committed rows, of the reading loop, of the real encoder."""

    committed: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    encoded: list[float] = field(default_factory=list)


def measure(*, quick: bool) -> Figure:
    """Publish uploads of about 150 bytes while the consumer is suspended; ViT-B-32 in batches of 32."""
    num_records, rounds = (1_000, 2) if quick else (20_000, MIN_ROUNDS)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        encoder = load_encoder(write_model(directory, quick=quick))
        pictures = crop_images(_BATCH, 32 if quick else 224)
        kafka = stack.enter_context(running_broker(directory))
        site = open_site(kafka, directory, "small-uploads")
        program = Program("benchmarks.processes.generated_consumer", query_service=None)
        services = stack.enter_context(running(site, program))
        publisher = stack.enter_context(closing(KafkaPublisher(kafka)))
        loop = stack.enter_context(closing(ReadingLoop(kafka.bootstrap_servers, site.topic)))
        encoder.encode(pictures)
        rates = Rates()
        for number in range(rounds + 1):
            rates.committed.append(_consume(services, publisher, number * num_records, num_records))
            rates.read.append(loop.read(num_records))
            rates.encoded.append(_BATCH / seconds_of(lambda: encoder.encode(pictures)))
    return _figure(rates, num_records)


def _consume(services: Running, publisher: KafkaPublisher, first: int, num_records: int) -> float:
    """Return the records a second from the first commit of the new records to the last."""
    watch = CommitWatch(services)
    before = watch.look().num_records
    with _stopped(services.consumer.pid):
        for number in range(first, first + num_records):
            event = encode_upload(f"upload-{number}", ImageContent(str(number).encode()))
            publisher.publish(services.site.topic, key=event.key, value=event.value)
        if publisher.flush(_PATIENCE_SECONDS):
            raise TimeoutError("the broker does not take the records")
    return burst_per_second(watch.follow(before + num_records))


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Suspend the process, for less time than its group waits for it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class ReadingLoop:
    """`consume(500)` and fastavro, and nothing else, with a client configured like ours."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": "loop", "enable.auto.commit": False}
        )
        self._consumer.assign([TopicPartition(topic, p, 0) for p in range(NUM_PARTITIONS)])

    def read(self, num_records: int) -> float:
        """Return the records a second from the first records read to the last."""
        num_read, began, deadline = 0, 0.0, time.monotonic() + _PATIENCE_SECONDS
        schema = current_schema().parsed
        num_first = 0
        while num_read < num_records:
            messages = self._consumer.consume(500, 0.1)
            if not began and messages:
                began, num_first = time.perf_counter(), len(messages)
            num_read += len(messages)
            for message in messages:
                _decode(message, schema)
            if time.monotonic() > deadline:
                raise TimeoutError("the loop does not get the records")
        return (num_read - num_first) / (time.perf_counter() - began)

    def close(self) -> None:
        self._consumer.close()


def _decode(message: Any, schema: Any) -> Any:
    stream = io.BytesIO(message.value())
    stream.seek(len(MARKER) + FINGERPRINT_BYTES)
    return fastavro.schemaless_reader(stream, schema, None)


def _figure(rates: Rates, num_records: int) -> Figure:
    """Build the figure. The first round is the warm-up and does not count."""
    ratio = median_ratio(rates.committed[1:], rates.read[1:])
    times = median_ratio(rates.committed[1:], rates.encoded[1:])
    committed, read = (round(statistics.median(found[1:])) for found in (rates.committed, rates.read))
    return Figure(
        NAME,
        {"times_encoder": round(times.median, 1)},
        f"≥ {MIN_TIMES:g} × the real encoder",
        times.median >= MIN_TIMES,
        {
            "records": num_records,
            "of_reading_loop": ratio.as_dict(),
            "times_encoder": times.as_dict(),
            "records_per_second": committed,
            "loop_records_per_second": read,
            "encoder": "ViT-B-32, random weights, batches of 32 pictures",
        },
        [
            ("measure", "value"),
            ("records/s to committed rows", f"{committed:,}"),
            ("records/s of consume(500) and Avro decode", f"{read:,}"),
            ("÷ the loop", str(ratio)),
            ("÷ the real encoder's rate", str(times)),
        ],
    )
