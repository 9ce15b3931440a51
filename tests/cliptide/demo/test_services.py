"""The main job over real processes: broker, consumer, query service."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from rich.console import Console

from cliptide.demo.address import PageAddress
from cliptide.demo.child_process import LOOPBACK, Child, ChildDied, free_port
from cliptide.demo.embedded_broker import EmbeddedBroker
from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue
from cliptide.demo.run import DemoOptions, DirectoryNotEmpty, running_demo
from cliptide.demo.services import (
    TOPIC,
    BrokerWatch,
    DemoFiles,
    DemoServices,
    NotReadyInTime,
    build_environment,
    running_services,
)
from cliptide.demo.uploads.events import UploadEvents
from cliptide.demo.uploads.freshness import FreshnessLog, IndexWatch
from cliptide.demo.uploads.stream import NotPublished
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import EventPublisher, LabelledEvent, Published
from cliptide.searching.query_client import QueryClient
from cliptide.searching.searchable import find_missing, missing_offsets, wait_until_covered, wanted_offsets
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.records import Delivery
from tests.cliptide.stub_query_service import StubQueryService
from tests.cliptide.untrained_model import write_untrained_model
from tests.event_log.event_logs import wait_until

NOWHERE = KafkaSettings("127.0.0.1:9")


def test_children_get_the_demos_settings_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", "/precious")
    monkeypatch.setenv("CLIPTIDE_CONSUMER__FLOOD_SHARE", "0")
    environment = build_environment(
        DemoFiles(tmp_path), tmp_path / "model", NOWHERE, PageAddress(LOOPBACK, 8123)
    )
    assert environment["CLIPTIDE_INDEX__ROOT"] == str(tmp_path / "index")
    assert environment["CLIPTIDE_QUERY_API__PORT"] == "8123"
    assert "CLIPTIDE_CONSUMER__FLOOD_SHARE" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_beyond_loopback_the_query_service_needs_no_key_and_knows_the_name_of_its_links(
    tmp_path: Path,
) -> None:
    page = PageAddress("0.0.0.0", 80, "https://demo.example:8443")
    environment = build_environment(DemoFiles(tmp_path), tmp_path / "model", NOWHERE, page)
    own = {name.removeprefix("CLIPTIDE_QUERY_API__"): value for name, value in environment.items()}
    assert (own["HOST"], own["ALLOW_ANONYMOUS"]) == ("0.0.0.0", "true")
    assert json.loads(own["HOST_NAMES"]) == ["demo.example"]
    assert json.loads(own["LINK_HOSTS"]) == ["demo.example:8443"]


def services_of(url: str, query_service: Child | None = None) -> DemoServices:
    return DemoServices(NOWHERE, QueryClient(url), query_service)


def test_services_are_ready_when_a_consumer_owns_every_partition() -> None:
    shard = {"generation": 1, "next_offset": 0, "num_contents": {}}
    unowned = {**shard, "generation": 0}
    answers = {"GET /readyz": (200, {}), "GET /v1/index": (200, {"shards": {"up-0": shard, "up-1": unowned}})}
    with StubQueryService(answers).serving() as service:
        with pytest.raises(NotReadyInTime):
            services_of(service.url).wait_until_ready(0.2)
        answers["GET /v1/index"] = (200, {"shards": {"up-0": shard, "up-1": shard}})
        services_of(service.url).wait_until_ready(60)


def test_a_service_that_dies_at_start_is_shown_with_its_last_words(tmp_path: Path) -> None:
    environment = {**os.environ, "CLIPTIDE_CONSUMER__HEALTH_PORT": "many"}
    child = Child("consumer", "consumer", environment, tmp_path / "consumer.log")
    with pytest.raises(ChildDied, match="CLIPTIDE_CONSUMER__HEALTH_PORT"):
        services_of(f"http://127.0.0.1:{free_port()}", child).wait_until_ready(60)


@pytest.mark.broker
def test_a_broker_that_dies_is_noticed_and_shown(tmp_path: Path) -> None:
    log_path = tmp_path / "broker.log"
    with EmbeddedBroker(log_path=log_path) as broker:
        services = replace(services_of("http://127.0.0.1:9"), broker=BrokerWatch(broker, log_path))
        services.check()
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        while broker.is_running:
            time.sleep(0.01)
        with log_path.open("a") as log:
            log.write("out of memory\n")
        with pytest.raises(ChildDied, match=r"the broker ended; its last lines:\n(.*\n)*out of memory"):
            services.check()


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DirectoryNotEmpty), running_demo(DemoOptions(directory=tmp_path), Console()):
        raise AssertionError("nothing is started")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@contextmanager
def publishing(
    services: DemoServices, events: Iterator[LabelledEvent], rate: float
) -> Iterator[Iterator[Published]]:
    publisher = KafkaPublisher(services.kafka)
    sender = EventPublisher(publisher, TOPIC, pacer=Pacer(rate))
    try:
        yield map(_published, sender.publish(events))
    finally:
        publisher.close()


def _published(outcome: object) -> Published:
    if not isinstance(outcome, Published):
        raise NotPublished(str(outcome))
    return outcome


@pytest.mark.broker
@pytest.mark.encoder
def test_a_consumer_killed_in_the_middle_of_the_stream_loses_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    contents = build_catalogue(120, 30, seed=5)
    middle = len(contents) // 2
    model = write_untrained_model(tmp_path / "model")
    files, page = DemoFiles(tmp_path), PageAddress(LOOPBACK, free_port())
    files.pictures.mkdir()
    events = UploadEvents(page.url, files.pictures).of(contents)
    deliveries: dict[str, Delivery] = {}
    with running_services(files, model, page) as services:
        services.wait_until_ready(120)
        client, consumer = services.query_client, services.consumer
        assert consumer is not None
        with publishing(services, events, rate=40) as outcomes, IndexWatch(client, FreshnessLog()) as watch:
            for outcome in outcomes:
                deliveries[outcome.content_id] = outcome.delivery
                if watch.state.num_contents >= 10 or len(deliveries) == middle:
                    break
            wait_until(lambda: watch.state.num_contents >= 10)
            os.kill(consumer.pid, signal.SIGSTOP)  # it can commit nothing from now on
            for outcome in islice(outcomes, 20):
                deliveries[outcome.content_id] = outcome.delivery
            os.kill(consumer.pid, signal.SIGKILL)
            assert consumer.stop() == -signal.SIGKILL
            assert missing_offsets(wanted_offsets(deliveries.values()), client.index().next_offsets)
            for outcome in outcomes:
                deliveries[outcome.content_id] = outcome.delivery
        services.check()  # starts the consumer again
        wait_until_covered(client, wanted_offsets(deliveries.values()), timeout_seconds=120)
        services.check()
        assert list(find_missing(client, deliveries)) == []
        assert client.index().num_contents == len(contents)
        assert_each_is_found_once(client, contents)


def assert_each_is_found_once(client: QueryClient, contents: tuple[CatalogueContent, ...]) -> None:
    answer = client.search({"text": "a red dress", "k": len(contents) + 10})
    found = [hit["content_id"] for result in answer["results"].values() for hit in result["hits"]]
    assert sorted(found) == sorted(content.content_id for content in contents)
