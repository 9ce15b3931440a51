"""Publishes the catalogue at a steady rate, and waits until the last one is searchable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from cliptide.demo.garments.catalogue import CatalogueContent
from cliptide.demo.services import TOPIC, DemoServices
from cliptide.demo.uploads.events import UploadEvents
from cliptide.demo.uploads.freshness import FreshnessLog, IndexWatch, TimedPublisher
from cliptide.demo.uploads.progress import show_uploads
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import EventPublisher, Failed, LabelledEvent, Published
from cliptide.searching.searchable import NotSearchableInTime, missing_offsets, wanted_offsets
from cliptide.terminal.progress import ProgressView
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.records import Delivery

LOOK_SECONDS = 0.05


class NotPublished(Exception):
    """The broker did not accept an upload."""


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What was published, and how long after its acknowledgement each upload was searchable."""

    deliveries: dict[str, Delivery]
    publish_seconds: float
    seconds: float
    searchable_after_seconds: list[float] = field(default_factory=list)

    @property
    def published_per_second(self) -> float:
        """The rate that was reached. A busy machine may draw more slowly than the wanted rate."""
        return len(self.deliveries) / self.publish_seconds


@dataclass(frozen=True, slots=True)
class Stream:
    """Sends one catalogue through the services."""

    services: DemoServices
    events: UploadEvents
    console: Console
    rate: float
    timeout_seconds: float

    def run(self, contents: Sequence[CatalogueContent]) -> StreamResult:
        """Publish everything, and return as soon as the index covers every delivery.

        Raises `ChildDied`, `NotPublished` and `NotSearchableInTime`.
        """
        started = time.monotonic()
        log = FreshnessLog()
        with (
            IndexWatch(self.services.query_client, log) as watch,
            show_uploads(self.console, len(contents)) as progress,
        ):
            deliveries = self._publish(contents, log, watch, progress)
            published = time.monotonic()
            self._follow(deliveries, watch, progress)
        return StreamResult(deliveries, published - started, time.monotonic() - started, log.seconds)

    def _publish(
        self,
        contents: Sequence[CatalogueContent],
        log: FreshnessLog,
        watch: IndexWatch,
        progress: ProgressView,
    ) -> dict[str, Delivery]:
        publisher = TimedPublisher(KafkaPublisher(_impatient(self.services.kafka)), log)
        deliveries: dict[str, Delivery] = {}
        try:
            sender = EventPublisher(publisher, TOPIC, pacer=Pacer(self.rate))
            for outcome in sender.publish(self._checked(self.events.of(contents))):
                deliveries |= _delivery(outcome)
                progress.update("published", len(deliveries))
                progress.update("searchable", watch.state.num_contents)
        finally:
            publisher.close()
        return deliveries

    def _checked(self, events: Iterator[LabelledEvent]) -> Iterator[LabelledEvent]:
        """Check the services before each event, because without them an outcome may never come."""
        for event in events:
            self.services.check()
            yield event

    def _follow(self, deliveries: dict[str, Delivery], watch: IndexWatch, progress: ProgressView) -> None:
        """Wait for offsets. A count would never be reached if a record was set aside."""
        wanted = wanted_offsets(deliveries.values())
        deadline = time.monotonic() + self.timeout_seconds
        while missing := missing_offsets(wanted, watch.state.next_offsets):
            self.services.check()
            if time.monotonic() >= deadline:
                raise NotSearchableInTime(missing)
            progress.update("searchable", watch.state.num_contents)
            time.sleep(LOOK_SECONDS)
        progress.update("searchable", watch.state.num_contents)


def _impatient(kafka: KafkaSettings) -> KafkaSettings:
    """Shorten the delivery timeout: a broker on this machine answers within half a minute or never."""
    return replace(kafka, properties={**kafka.properties, "message.timeout.ms": 30_000})


def _delivery(outcome: Published | Failed) -> dict[str, Delivery]:
    if isinstance(outcome, Failed):
        raise NotPublished(f"{outcome.label}: {outcome.reason}")
    return {outcome.content_id: outcome.delivery}
