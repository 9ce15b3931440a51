"""A bucket of a real S3 server that publishes its notifications to Apache Kafka is a searchable catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from clip_index.reading.index_reader import IndexReader
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import KafkaSettings
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.app import AppSettings, build_app
from tests.integration.fleet import Fleet
from tests.kafka.captures import upload_in_parts
from tests.kafka.versitygw import VersityGateway, VersityUnavailable

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]  # the first run builds the server
NAME = "summer/red dress+1 %41 é.png"


@pytest.fixture
def bucket_fleet(
    kafka_settings: KafkaSettings, unique_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Fleet]:
    """A topic of one partition, because the store chooses partitions by their size and not by the key."""
    fleet = Fleet(kafka_settings, unique_name("notifications"), tmp_path, num_partitions=1)
    for topic in (fleet.topic, fleet.dead_letter_topic):
        KafkaAdmin(kafka_settings).create_topic(topic, TopicCreation(1))
    yield fleet
    fleet.end()


@pytest.fixture
def store(bucket_fleet: Fleet) -> Iterator[VersityGateway]:
    try:
        with VersityGateway(bucket_fleet.kafka.bootstrap_servers, bucket_fleet.topic) as store:
            yield store
    except VersityUnavailable as error:
        pytest.skip(f"VersityGW: {error}")


async def search(root: Path, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask a query service over the index; return the hits of all modalities."""
    reader = IndexReader(root, fingerprint=HashEncoder().fingerprint)
    reader.reload()
    app = build_app(HashEncoder(), reader, CollectorRegistry(), AppSettings())
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/v1/search", json=body)
        assert answer.status == 200
        found: dict[str, dict[str, list[dict[str, Any]]]] = (await answer.json())["results"]
        return [hit for ranked in found.values() for hit in ranked["hits"]]


async def test_what_is_put_into_the_bucket_is_found_and_what_is_removed_is_not(
    bucket_fleet: Fleet, store: VersityGateway
) -> None:
    consumer = bucket_fleet.start(
        CLIPTIDE_MAPPING="s3-notification",
        CLIPTIDE_CONSUMER__REFERENCE_BUCKETS='["s3://photos"]',
        **store.environment(),
    )
    s3 = store.client()
    s3.create_bucket(Bucket="photos")
    s3.put_object(Bucket="photos", Key=NAME, Body=draw_picture(1))
    s3.put_object(Bucket="photos", Key="notes/café.txt", Body=b"a red dress")
    s3.copy_object(Bucket="photos", Key="copy.png", CopySource={"Bucket": "photos", "Key": NAME})
    upload_in_parts(s3, draw_picture(2))
    bucket_fleet.wait(lambda: bucket_fleet.num_contents() == 4)
    [text] = await search(bucket_fleet.root, {"text": "a red dress", "k": 1, "modality": "text"})
    assert text["content_id"] == "photos/notes/café.txt"
    pictures = await search(bucket_fleet.root, {"content_id": f"photos/{NAME}", "modality": "image"})
    assert pictures[0]["content_id"] == "photos/copy.png", "the same picture under another name"
    for key in (NAME, "notes/café.txt"):
        s3.delete_object(Bucket="photos", Key=key)
    bucket_fleet.wait(lambda: bucket_fleet.num_contents() == 2)
    assert await search(bucket_fleet.root, {"text": "a red dress", "modality": "text"}) == []
    assert consumer.stop() == 0
    assert consumer.told("records set aside") is None
