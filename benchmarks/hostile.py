"""Good uploads and queries among poison records and slow connections, against the same without them."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import numpy as np

from benchmarks.clients.photographs import crop_jpegs, with_other_bytes
from benchmarks.clients.poison import build_poison
from benchmarks.clients.search_connection import Refused, SearchConnection
from benchmarks.clients.uploads import encode_upload
from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio
from benchmarks.indexes.commits import CommitWatch
from benchmarks.processes.process_figures import forget_peak_memory, peak_memory_bytes
from benchmarks.processes.services import (
    Program,
    Running,
    encoder_environment,
    open_site,
    running,
    running_broker,
)
from clip_index.encoder.settings import EncoderSettings
from cliptide.demo.small_clip.model import model_config, write_model_directory
from cliptide.searching.query_client import QueryClient
from event_log.kafka.publisher import KafkaPublisher
from schemas.events import ImageContent

NAME = "hostile"
MIN_UPLOADS, MAX_TAIL, MAX_MEMORY = 0.95, 1.5, 1.25
TARGET = f"uploads/s ≥ {MIN_UPLOADS}, p99 ≤ {MAX_TAIL}×, memory ≤ {MAX_MEMORY}×, no crash, no 5xx"
_POISON_EVERY, _QUERIES_PER_SECOND = 19, 50.0


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured during one burst of uploads."""

    uploads_per_second: float
    p99_seconds: float
    peak_bytes: int


@dataclass(slots=True)
class Windows:
    clean: list[Window] = field(default_factory=list)
    hostile: list[Window] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    num_lost: int = 0


def measure(*, quick: bool) -> Figure:
    """Compare bursts of uploads (JPEGs of 320 × 240) with and without attackers.

    A window lasts from the publication of a burst to its last commit, while a good client asks
    50 vector queries a second. In every second window one record in twenty is poison, and 500
    connections send one byte a second each. The demo's fast model encodes, because poison
    weighs the more, the less an upload costs. No two uploads have the same bytes, because known bytes
    are not encoded again.
    """
    num_good, num_slow, rounds = (190, 20, 1) if quick else (1_900, 500, 3 * MIN_ROUNDS)
    windows = Windows()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka = stack.enter_context(running_broker(directory))
        site = open_site(kafka, directory, "uploads")
        settings = EncoderSettings(str(write_model_directory(directory / "demo")), None)
        services = stack.enter_context(running(site, Program(environment=encoder_environment(settings))))
        publisher = stack.enter_context(closing(KafkaPublisher(kafka)))
        stream = Stream(services, publisher, num_good)
        stream.run(poisoned=False)
        for _ in range(rounds):
            windows.clean.append(_window(services, stream, windows.statuses, poisoned=False))
            with slow_connections(services.port, num_slow, windows.statuses):
                windows.hostile.append(_window(services, stream, windows.statuses, poisoned=True))
        windows.num_lost = stream.num_lost()
    return _figure(windows)


def _window(services: Running, stream: Stream, statuses: Counter[str], *, poisoned: bool) -> Window:
    assert services.query_service is not None
    pids = (services.consumer.pid, services.query_service.pid)
    for pid in pids:
        forget_peak_memory(pid)
    with asking(services.port, statuses) as seconds:
        rate = stream.run(poisoned=poisoned)
    services.check()
    return Window(rate, float(np.percentile(seconds, 99)), sum(map(peak_memory_bytes, pids)))


class Stream:
    """Publishes bursts of good uploads, with or without poison among them."""

    def __init__(self, services: Running, publisher: KafkaPublisher, num_good: int) -> None:
        self._services = services
        self._publisher = publisher
        self._num_good = num_good
        self._pictures = crop_jpegs(200, 320, 240)
        self._poison = itertools.cycle(build_poison())
        self._num_published = self._num_poison = 0

    def run(self, *, poisoned: bool) -> float:
        """Return the good uploads a second, from the first record of the burst to its last commit."""
        watch = CommitWatch(self._services)
        until = watch.look().num_records + self._num_good
        began = time.perf_counter()
        for number in range(self._num_good):
            self._publish_good()
            if poisoned and number % _POISON_EVERY == 0:
                self._publish_poison()
                until += 1
        return self._num_good / (watch.follow(until)[-1].seconds - began)

    def num_lost(self) -> int:
        """Count the good uploads that the query service does not find."""
        client = QueryClient(f"http://127.0.0.1:{self._services.port}")
        covered = CommitWatch(self._services).look().num_records
        self._services.wait(lambda: sum(client.index().next_offsets.values()) >= covered)
        return self._num_published - client.index().num_contents

    def _publish_good(self) -> None:
        picture = self._pictures[self._num_published % len(self._pictures)]
        content = ImageContent(with_other_bytes(picture, self._num_published))
        event = encode_upload(f"upload-{self._num_published}", content)
        self._publisher.publish(self._services.site.topic, key=event.key, value=event.value)
        self._num_published += 1

    def _publish_poison(self) -> None:
        key, value = next(self._poison)(self._num_poison)
        self._publisher.publish(self._services.site.topic, key=key, value=value)
        self._num_poison += 1


@contextmanager
def asking(port: int, statuses: Counter[str]) -> Iterator[list[float]]:
    """Ask at a steady rate from another thread. Yields the seconds of each answer, errors included."""
    done = Event()
    seconds: list[float] = []
    vector = np.eye(1, int(model_config()["embed_dim"]))[0].tolist()
    body = json.dumps({"vector": vector, "modality": "image", "k": 10})

    def run() -> None:
        with closing(SearchConnection(port)) as connection:
            while True:
                began = time.perf_counter()
                statuses[_status(connection, body)] += 1
                seconds.append(time.perf_counter() - began)
                if done.wait(1 / _QUERIES_PER_SECOND):
                    break

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(run)
        try:
            yield seconds
        finally:
            done.set()
        asked.result()


def _status(connection: SearchConnection, body: str) -> str:
    try:
        connection.search(body)
    except Refused as refused:
        return str(refused.status)
    return "200"


@contextmanager
def slow_connections(port: int, num_connections: int, statuses: Counter[str]) -> Iterator[None]:
    """Hold slow connections from another process, and count the statuses that they were answered."""
    command = [sys.executable, "-m", "benchmarks.clients.slow_connections", str(port), str(num_connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the line says that all are open
        yield
        answer, _ = process.communicate()
    statuses.update(json.loads(answer)["statuses"])


def _figure(windows: Windows) -> Figure:
    clean, hostile = windows.clean, windows.hostile
    uploads = median_ratio(_rates(hostile), _rates(clean))
    tail = median_ratio([w.p99_seconds for w in hostile], [w.p99_seconds for w in clean])
    memory = median_ratio([w.peak_bytes for w in hostile], [w.peak_bytes for w in clean])
    num_5xx = sum(count for status, count in windows.statuses.items() if status.startswith("5"))
    value = {
        "uploads": round(uploads.median, 3),
        "p99": round(tail.median, 3),
        "memory": round(memory.median, 3),
        "crashes": 0,  # a crash would have ended the measurement with an error
        "5xx": num_5xx,
    }
    holds = (
        uploads.median >= MIN_UPLOADS
        and tail.median <= MAX_TAIL
        and memory.median <= MAX_MEMORY
        and num_5xx == windows.num_lost == 0
    )
    details = {
        "uploads": uploads.as_dict(),
        "p99": tail.as_dict(),
        "memory": memory.as_dict(),
        "clean_uploads_per_second": round(statistics.median(_rates(clean)), 1),
        "clean_p99_ms": round(statistics.median(w.p99_seconds for w in clean) * 1e3, 1),
        "statuses": dict(sorted(windows.statuses.items())),
        "good_uploads_lost": windows.num_lost,
        "encoder": "the demo's model",
    }
    rows = [
        ("measure", "hostile ÷ clean"),
        ("good uploads/s", str(uploads)),
        ("p99 of a healthy client", str(tail)),
        ("peak memory of both processes", str(memory)),
        ("answers by status", ", ".join(f"{s}: {n}" for s, n in sorted(windows.statuses.items()))),
        ("good uploads lost", str(windows.num_lost)),
    ]
    return Figure(NAME, value, TARGET, holds, details, rows)


def _rates(windows: Sequence[Window]) -> list[float]:
    return [window.uploads_per_second for window in windows]
