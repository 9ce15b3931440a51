"""The whole change of a model: query services under load, an index beside, the switch, the way back.

The root is a directory, or a bucket of a real server. On a bucket it is tried with fewer contents and
services, because what depends on the root are the files, the pointer and the copies, not the model.

The first model is the demo's with noise in its weights, so that it finds less; the second is the demo's.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from clip_index.encoder.open_clip import OpenClipEncoder, load_encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot, ObjectRoot, local_directory
from cliptide.__main__ import main
from cliptide.demo.address import PageAddress
from cliptide.demo.child_process import LOOPBACK, Child, free_port
from cliptide.demo.embedded_broker import EmbeddedBroker
from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue
from cliptide.demo.services import DemoFiles, build_environment
from cliptide.demo.small_clip.model import write_model_directory
from cliptide.reindexing import forecast
from cliptide.searching.query_client import QueryClient, QueryServiceError
from consumer.app import Connections, ConsumerOptions, IndexLocation, build_consumer
from consumer.telemetry.metrics import Metrics
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from schemas.codec import encode_event
from schemas.events import ImageContent, TextContent, UploadEvent
from tests.consumer.running import eventually
from tests.fixtures.buckets import reach
from tests.object_stores.servers import ObjectServer

pytestmark = [pytest.mark.broker, pytest.mark.encoder]

NOISE = 2.0
PATIENCE_SECONDS = 300.0
QUESTIONS = ("a red striped dress", "blue shoes", "a green hat with dots")


def write_worse_model(path: Path, good: Path) -> Path:
    """Write the good model with noise in its last layers, relative to how far their weights spread."""
    write_model_directory(path)
    tensors = load_file(good / "open_clip_model.safetensors")
    noise = np.random.default_rng(3)
    for name in ("text_projection", "visual.proj"):
        spread = float(tensors[name].astype(np.float32).std())
        tensors[name] += (NOISE * spread * noise.standard_normal(tensors[name].shape)).astype(np.float16)
    save_file(tensors, path / "open_clip_model.safetensors", metadata={"format": "pt"})
    return path


@dataclass(frozen=True)
class Effort:
    """How much of everything the change is tried with. Each note has two pictures."""

    num_notes: int
    num_services: int
    num_clients: int
    num_requests: int

    @property
    def num_pictures(self) -> int:
        return 2 * self.num_notes


IN_A_DIRECTORY = Effort(num_notes=40, num_services=2, num_clients=4, num_requests=200)
IN_A_BUCKET = Effort(num_notes=20, num_services=1, num_clients=1, num_requests=30)


@dataclass
class Site:
    """A topic, a root, two models, and the query services. Without a bucket the root is a directory."""

    kafka: KafkaSettings
    topic: str
    folder: Path
    effort: Effort
    bucket: str | None = None
    services: list[QueryClient] = field(default_factory=list)

    @property
    def root(self) -> IndexRoot:
        return ObjectRoot(self.bucket, self.folder / "copies") if self.bucket else self.folder / "index"

    @property
    def files(self) -> DemoFiles:
        return DemoFiles(self.folder, bucket=self.bucket)

    def group(self, index_id: str) -> str:
        return f"{self.topic}-{index_id}"

    def model(self, name: str) -> Path:
        return self.folder / name

    def publish(self, contents: Sequence[CatalogueContent]) -> None:
        with closing(KafkaPublisher(self.kafka)) as publisher:
            for content in contents:
                encoded = encode_event(event_of(content))
                publisher.publish(self.topic, key=encoded.key, value=encoded.value, headers=encoded.headers)
            assert publisher.flush(60.0) == 0

    @contextmanager
    def consuming(self, index_id: str, encoder: OpenClipEncoder) -> Iterator[None]:
        """Run an ordinary consumer of an index, in its own group, in this process."""
        group_id = self.group(index_id)
        with closing(KafkaPublisher(self.kafka)) as publisher:
            connections = Connections(
                KafkaRecordSource(self.kafka, group_id),
                publisher,
                encoder,
                KafkaAdmin(self.kafka).describe_topic(self.topic),
                f"{self.topic}.dead-letters",
            )
            location = IndexLocation(self.root, index_id, group_id)
            pipeline = build_consumer(connections, location, ConsumerOptions(), Metrics())
            pipeline.start()
            try:
                yield
            finally:
                pipeline.finish()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run query services as processes, which know the first model only."""
        with ExitStack() as stack:
            for number in range(self.effort.num_services):
                page = PageAddress(LOOPBACK, free_port())
                environment = build_environment(self.files, self.model("worse"), self.kafka, page)
                environment |= {"CLIPTIDE_TOPIC": self.topic, "OMP_NUM_THREADS": "1"}
                log = self.folder / f"query-{number}.log"
                child = Child(f"query service {number}", "query_api", environment, log)
                stack.callback(child.stop)
                self.services.append(QueryClient(page.url))
            yield

    def run(self, *words: str) -> Result:
        """Run a command, which may refuse."""
        command, *rest = words
        flags = ["--index-root", str(self.root)]
        if self.bucket:
            flags += ["--index-cache-dir", str(local_directory(self.root))]
        return CliRunner(env={"COLUMNS": "200"}).invoke(main, [command, *flags, *rest])

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("query-*.log")))


def event_of(content: CatalogueContent) -> UploadEvent:
    is_text = content.modality == "text"
    return UploadEvent(
        event_id=f"event-{content.content_id}",
        content_id=content.content_id,
        source="demo",
        occurred_at=datetime.now(timezone.utc),
        content=TextContent(content.text) if is_text else ImageContent(content.image_bytes()),
    )


def draw_catalogue(num_notes: int) -> list[CatalogueContent]:
    """Return notes, and for each of them two pictures of what it names."""
    drawn = build_catalogue(2_000, 200, seed=1)
    pictures = defaultdict(list)
    for one in drawn:
        if one.modality == "image":
            pictures[one.combination].append(one)
    notes = {one.combination: one for one in drawn if one.modality == "text"}
    chosen = [note for note in notes.values() if len(pictures[note.combination]) > 1][:num_notes]
    return [*chosen, *(picture for note in chosen for picture in pictures[note.combination][:2])]


@dataclass
class Load:
    """Asks the services all the time; keeps each answer's best score and time, and each failure."""

    services: Sequence[QueryClient]
    num_clients: int
    scores: dict[str, set[float]] = field(default_factory=lambda: {text: set() for text in QUESTIONS})
    seconds: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Load]:
        done = threading.Event()
        asked = islice(cycle(self.services), self.num_clients)
        threads = [threading.Thread(target=self._ask, args=(one, done)) for one in asked]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def _ask(self, service: QueryClient, done: threading.Event) -> None:
        number = 0
        while not done.is_set():
            text = QUESTIONS[number % len(QUESTIONS)]
            number += 1
            began = time.monotonic()
            try:
                answer = service.search({"text": text, "modality": "image", "k": 1, "min_percentile": 0.0})
            except QueryServiceError as error:
                self.failures.append(str(error))
                continue
            self.seconds.append((began, time.monotonic() - began))
            self.scores[text].add(round(float(answer["results"]["image"]["hits"][0]["score"]), 3))
            time.sleep(0.01)

    def p99(self, first: float, last: float) -> float:
        """Return the 99th percentile of the milliseconds of requests that began in a span of time."""
        found = [spent for began, spent in self.seconds if first <= began < last]
        return 1000 * float(np.percentile(found, 99))


def best_scores(site: Site, index_id: str, encoder: OpenClipEncoder) -> dict[str, float]:
    """Return what each question finds first, as this index and this encoder answer."""
    reader = IndexReader(site.root, index_id, encoder.fingerprint)
    reader.reload()
    assert reader.searcher is not None
    rows = encoder.encode([encoder.prepare_text(text) for text in QUESTIONS])
    found = reader.searcher.search(np.concatenate(rows), k=1, modality="image")
    return {text: hits[0].score for text, hits in zip(QUESTIONS, found, strict=True)}


def share_of_right_answers(service: QueryClient, catalogue: Sequence[CatalogueContent]) -> float:
    """Ask for pictures by notes: how often does the first one show the note's garment in its colour?"""
    about = {one.content_id: one.combination for one in catalogue}
    notes = [one for one in catalogue if one.modality == "text"]
    right = 0
    for note in notes:
        answer = service.search({"text": note.text, "modality": "image", "k": 1})
        found = about[answer["results"]["image"]["hits"][0]["content_id"]]
        wanted = note.combination
        right += (found.garment, found.colour) == (wanted.garment, wanted.colour)
    return right / len(notes)


_SERVERS = {"versitygw": "s3_gateway", "moto": "moto_server"}


@pytest.fixture(params=["directory", *_SERVERS])
def site(
    request: pytest.FixtureRequest,
    embedded_broker: EmbeddedBroker,
    unique_name: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    if request.param == "directory":
        return set_up(embedded_broker, unique_name("uploads"), tmp_path, IN_A_DIRECTORY)
    monkeypatch.setattr(forecast, "_PROBE_SECONDS", 0.0)  # how fast this machine encodes does not matter
    server: ObjectServer = request.getfixturevalue(_SERVERS[request.param])
    bucket = f"{reach(server, monkeypatch)}/some/index"
    return set_up(embedded_broker, unique_name("uploads"), tmp_path, IN_A_BUCKET, bucket)


def set_up(
    embedded_broker: EmbeddedBroker, topic: str, folder: Path, effort: Effort, bucket: str | None = None
) -> Site:
    """Create the topics and write both models."""
    kafka = KafkaSettings(embedded_broker.bootstrap_servers, EmbeddedBroker.client_properties)
    admin = KafkaAdmin(kafka)
    admin.create_topic(topic, TopicCreation(2))
    admin.create_topic(f"{topic}.dead-letters", TopicCreation(1))
    site = Site(kafka, topic, folder, effort, bucket)
    write_model_directory(site.model("good"))
    write_worse_model(site.model("worse"), site.model("good"))
    return site


def write_pairs(site: Site, catalogue: Sequence[CatalogueContent]) -> Path:
    """Write each picture with the note that names what it shows, under the ids of the index."""
    notes = {one.combination: one.text for one in catalogue if one.modality == "text"}
    folder = site.folder / "pairs"
    folder.mkdir()
    rows = []
    for one in catalogue:
        if one.modality == "image":
            (folder / one.content_id).write_bytes(one.image_bytes())
            rows.append({"file": one.content_id, "id": one.content_id, "caption": notes[one.combination]})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    return folder


def figures_of(pairs: Path, *flags: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["evaluate", str(pairs), "--json", "--samples", "0", *flags])
    assert result.exit_code == 0, result.output
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def check_that_the_service_finds_what_its_model_finds(
    site: Site, catalogue: Sequence[CatalogueContent]
) -> None:
    """The index, HTTP and percentiles may change a figure of `cliptide evaluate` by at most 0.01."""
    pairs = write_pairs(site, catalogue)
    of_model = figures_of(pairs, "--model", str(site.model("worse")))
    of_service = figures_of(pairs, "--service", "--query-url", site.services[0].url)
    assert of_service["num_pairs"] == of_model["num_pairs"] == site.effort.num_pictures
    assert of_model["text_to_image"]["recall@1"] < 0.95  # a perfect model could not tell a difference
    for direction in ("text_to_image", "image_to_text"):
        assert of_service[direction] == pytest.approx(of_model[direction], abs=0.01), direction


def check_that_the_indexes_are_compared(site: Site) -> None:
    model = f"main={site.model('worse')}"  # the consumer of this test has recorded none
    result = site.run("compare", "main", "v2", "--model-of", model, "--sample", "20", "--json")
    assert result.exit_code == 0, result.output
    overlaps = json.loads(result.stdout.splitlines()[-1])["overlaps"]["sampled"]
    assert all(0.0 < found["mean"] < 1.0 for found in overlaps.values()), overlaps


def kafka_flags(site: Site) -> list[str]:
    properties = json.dumps(dict(site.kafka.properties))
    return ["--bootstrap-servers", site.kafka.bootstrap_servers, "--kafka-properties", properties]


def covers(site: Site, index_id: str, num_records: int) -> bool:
    reader = IndexReader(site.root, index_id)
    reader.reload()
    assert reader.searcher is not None
    return sum(shard.next_offset for shard in reader.searcher.shards.values()) >= num_records


def test_a_better_model_is_served_without_a_pause_and_taken_back(
    site: Site, record_property: Callable[[str, Any], None]
) -> None:
    catalogue = draw_catalogue(site.effort.num_notes)
    worse, good = (load_encoder(EncoderSettings(model=str(site.model(one)))) for one in ("worse", "good"))
    site.publish(catalogue)
    with site.consuming("main", worse):
        eventually(lambda: covers(site, "main", len(catalogue)), PATIENCE_SECONDS)
        with site.serving():
            eventually(lambda: all(one.is_ready() for one in site.services), PATIENCE_SECONDS)
            eventually(lambda: all(has_percentiles(one) for one in site.services), PATIENCE_SECONDS)
            if not site.bucket:  # what a model finds does not depend on the root
                check_that_the_service_finds_what_its_model_finds(site, catalogue)
            change_and_check(site, catalogue, (worse, good), record_property)


def has_percentiles(service: QueryClient) -> bool:
    hits = service.search({"text": "a hat", "modality": "image", "k": 1})["results"]["image"]["hits"]
    return "percentile" in hits[0]


def change_and_check(
    site: Site,
    catalogue: Sequence[CatalogueContent],
    encoders: tuple[OpenClipEncoder, OpenClipEncoder],
    record_property: Callable[[str, Any], None],
) -> None:
    worse, good = encoders
    before = share_of_right_answers(site.services[0], catalogue)
    described = site.run(
        *("reindex", "--index-id", "v2", "--model", str(site.model("good")), "--group-id", site.group("v2")),
        *kafka_flags(site),
    )
    assert described.exit_code == 0, described.output
    live = f"{site.effort.num_pictures} pictures and {site.effort.num_notes} texts are live"
    assert live in described.stderr
    services = [word for one in site.services for word in ("--service", one.url)]
    early = site.run("switch", "v2", "--wait-seconds", "0", *services)
    assert early.exit_code == 1
    assert f"v2 is {len(catalogue)} records behind main" in early.stderr
    with site.consuming("v2", good):
        assert site.run("reindex", "--index-id", "v2", "--watch").exit_code == 0
        check_that_the_indexes_are_compared(site)
        with Load(site.services, site.effort.num_clients).running() as load:
            quiet = time.monotonic()
            time.sleep(0.9)
            eventually(lambda: len(load.seconds) > site.effort.num_requests, PATIENCE_SECONDS)
            switching = time.monotonic()
            switched = site.run("switch", "v2", *services)
            assert switched.exit_code == 0, switched.output + site.logs()
            switched_at = time.monotonic()
            after = share_of_right_answers(site.services[-1], catalogue)
            back = site.run("rollback", *services)
            assert back.exit_code == 0, back.output + site.logs()
            again = share_of_right_answers(site.services[-1], catalogue)
    assert load.failures == []
    old, new = best_scores(site, "main", worse), best_scores(site, "v2", good)
    for text, scores in load.scores.items():
        strange = {one for one in scores if min(abs(one - old[text]), abs(one - new[text])) > 2e-3}
        assert not strange, (text, strange, old[text], new[text])
        assert {abs(one - old[text]) < abs(one - new[text]) for one in scores} == {True, False}
    assert after > before + 0.2
    assert again == pytest.approx(before)
    figures = {
        "right_before": before,
        "right_after": after,
        "requests": len(load.seconds),
        "switch_seconds": round(switched_at - switching, 2),
        "p99_quiet_ms": round(load.p99(quiet, switching), 1),
        "p99_during_the_swap_ms": round(load.p99(switching, switched_at), 1),
    }
    for name, value in figures.items():
        record_property(name, value)
