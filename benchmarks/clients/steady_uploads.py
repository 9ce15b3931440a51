"""Uploads of single vectors at a steady rate, from a process of their own.

In a thread they would hold the interpreter's lock of the clients that ask, whose p99 is measured.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection

from benchmarks.clients.uploads import encode_upload
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from schemas.events import ImageContent

_PAUSE_SECONDS = 0.01


class SteadyUploads:
    """Each upload has a new id; the encoder knows its vector by its number."""

    def __init__(self, orders: Connection[float | None, object]) -> None:
        """The process at the other end of `orders` takes rates."""
        self._orders = orders

    @contextmanager
    def at_rate(self, rate: float) -> Iterator[None]:
        """Publish `rate` uploads a second until the context ends; none if the rate is 0."""
        self._orders.send(rate)
        try:
            yield
        finally:
            self._orders.send(0.0)


@contextmanager
def steady_uploads(kafka: KafkaSettings, topic: str) -> Iterator[SteadyUploads]:
    """Start the process. Raises `RuntimeError` at the end if it has failed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_publish_at_rates, args=(kafka.bootstrap_servers, topic, theirs), daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield SteadyUploads(ours)
        ours.send(None)
        process.join()
    finally:
        process.kill()
        process.join()
    if process.exitcode:
        raise RuntimeError(f"the process that publishes ended with {process.exitcode}")


def _publish_at_rates(bootstrap_servers: str, topic: str, orders: Connection[object, float | None]) -> None:
    numbers = itertools.count()
    rate, began, num_published = 0.0, time.monotonic(), 0
    with closing(KafkaPublisher(KafkaSettings(bootstrap_servers))) as publisher:
        while True:
            if orders.poll(_PAUSE_SECONDS if rate else None):
                order = orders.recv()
                if order is None:
                    return
                rate, began, num_published = order, time.monotonic(), 0
            due = int((time.monotonic() - began) * rate)
            for number in itertools.islice(numbers, max(0, due - num_published)):
                event = encode_upload(f"upload-{number}", ImageContent(str(number).encode()))
                publisher.publish(topic, key=event.key, value=event.value)
            num_published = max(due, num_published)
