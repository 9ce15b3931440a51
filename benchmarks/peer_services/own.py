"""This project's services under the same measurement: a broker, the consumer and the query service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.clients.uploads import encode_upload
from benchmarks.indexes.searched_index import Layout
from benchmarks.peer_services.system import PATIENCE_SECONDS, as_list
from benchmarks.processes.generated_encoder import FINGERPRINT
from benchmarks.processes.process_figures import session_cpu_seconds
from benchmarks.processes.services import (
    NO_RATE_LIMIT,
    Program,
    Running,
    lay_index,
    open_site,
    running,
    running_broker,
)
from clip_index.content import Embeddings
from event_log.kafka.publisher import KafkaPublisher
from schemas.events import ImageContent

NAME = "cliptide"
_PROGRAM = Program(
    "benchmarks.processes.generated_consumer",
    "benchmarks.processes.generated_query_service",
    NO_RATE_LIMIT,
)


class Own:
    """Rows travel through the log; the consumer's encoder takes no time, and knows a row by its number."""

    name = NAME
    path = "/v1/search"
    efforts = (0,)  # merges calibrate how much a search looks at

    def __init__(self, services: Running, publisher: KafkaPublisher, num_rows: int) -> None:
        assert services.query_service is not None
        self.port = services.port
        self.query_pid = services.query_service.pid
        self.ingest_pid = services.consumer.pid
        self._services = services
        self._publisher = publisher
        self._num_rows = num_rows

    def set_effort(self, effort: int) -> None:
        """The index says how much a search looks at."""

    def body(self, query: Embeddings, k: int) -> str:
        return json.dumps({"vector": as_list(query), "k": k, "modality": "image"})

    def ids_of(self, answer: bytes) -> list[int]:
        hits = json.loads(answer)["results"]["image"]["hits"]
        return [self._number(hit["content_id"]) for hit in hits]

    def _number(self, content_id: str) -> int:
        return int(content_id.rpartition("-")[2])

    def append(self, numbers: Sequence[int], rows: Embeddings) -> None:
        topic = self._services.site.topic
        deliveries = []
        for number in numbers:
            picture = ImageContent(str(number - self._num_rows).encode())
            event = encode_upload(f"upload-{number}", picture)
            deliveries.append(self._publisher.publish(topic, key=event.key, value=event.value))
        for delivery in deliveries:
            delivery.result(PATIENCE_SECONDS)

    def finish(self) -> None:
        """Merges run by themselves."""

    def ingest_cpu_seconds(self) -> float:
        return session_cpu_seconds(self.ingest_pid)


@contextmanager
def running_own(layout: Layout, directory: Path) -> Iterator[Own]:
    """Start the services with a copy of the generated index."""
    with running_broker(directory) as kafka:
        site = open_site(kafka, directory, "rows")
        lay_index(site, layout, FINGERPRINT)
        with running(site, _PROGRAM) as services, closing(KafkaPublisher(kafka)) as publisher:
            yield Own(services, publisher, layout.num_rows)
