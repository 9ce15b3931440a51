"""References into a bucket, against moto's S3 server: what is fetched, and what is given up and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from consumer.backoff import Backoff
from consumer.references.fetching import FetchLimits, ReferenceGivenUp, References
from consumer.references.policy import ReferencePatience, ReferencePolicy
from consumer.telemetry.metrics import Metrics
from fakes.hash_encoder import draw_picture
from schemas.events import ContentReference
from tests.consumer.running import PATIENCE_SECONDS, World, upload

PICTURE = draw_picture(1)
LARGE = PICTURE + bytes(1_000_000)  # several chunks
DENY_ALL = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::closed/*"}
    ],
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A store with pictures in a bucket, and another bucket that nobody may read."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    for bucket in ("photos", "closed"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="photos", Key="a b/schön.png", Body=PICTURE)
    s3.put_object(Bucket="photos", Key="large.png", Body=LARGE)
    s3.put_object(Bucket="closed", Key="x.png", Body=PICTURE)
    s3.put_bucket_policy(Bucket="closed", Policy=json.dumps(DENY_ALL))
    s3.close()
    yield endpoint
    server.stop()


@pytest.fixture(autouse=True)
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator sets; nothing of it can come from a reference."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


POLICY = ReferencePolicy(buckets=frozenset({"s3://photos", "s3://closed", "s3://never-created"}))
LIMITS = FetchLimits(
    timeout_seconds=20.0, patience=ReferencePatience(0.05, 0.05), backoff=Backoff(0.01, 0.02)
)


@pytest.fixture
def references() -> Iterator[References]:
    references = References(POLICY, LIMITS, failing=Metrics().references_failing)
    references.start()
    yield references
    references.close(PATIENCE_SECONDS)


def reference(uri: str, data: bytes = PICTURE, size_bytes: int | None = None) -> ContentReference:
    size = len(data) if size_bytes is None else size_bytes
    return ContentReference(uri, hashlib.sha256(data).hexdigest(), size, "image")


SOUND = reference("s3://photos/a%20b/sch%C3%B6n.png")


@pytest.mark.parametrize(
    ("wanted", "data"),
    [
        pytest.param(SOUND, PICTURE, id="a key with a space and an umlaut"),
        pytest.param(reference("s3://photos/large.png", LARGE), LARGE, id="several chunks"),
    ],
)
def test_an_object_is_fetched(references: References, wanted: ContentReference, data: bytes) -> None:
    assert references.fetch(wanted).result(PATIENCE_SECONDS) == data


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        pytest.param(reference("s3://photos/none"), "reference_absent", id="no such object"),
        pytest.param(reference("s3://never-created/x"), "reference_absent", id="no such bucket"),
        pytest.param(
            reference(SOUND.uri, b"x" * len(PICTURE)), "digest_mismatch", id="bytes of another digest"
        ),
        pytest.param(
            reference("s3://photos/large.png", LARGE, 70_000), "size_mismatch", id="longer than promised"
        ),
        pytest.param(reference("s3://photos/a//b.png"), "reference_refused", id="an empty part of a key"),
        pytest.param(reference("s3://photos/.."), "reference_refused", id="dots for a key"),
        pytest.param(reference("s3://photos/%00"), "reference_refused", id="a zero byte"),
        pytest.param(reference("s3://photos/%0A"), "reference_refused", id="a line feed"),
        pytest.param(reference("s3://photos/\ud800"), "reference_refused", id="half a surrogate pair"),
        pytest.param(reference("s3://elsewhere/x"), "reference_refused", id="a bucket that nobody allowed"),
    ],
)
def test_what_is_not_the_promised_object_is_given_up(
    references: References, wanted: ContentReference, reason: str
) -> None:
    error = references.fetch(wanted).exception(PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp)
    assert error.reason == reason


def test_a_bucket_that_denies_is_waited_for_while_nothing_else_answers(references: References) -> None:
    """The credentials may be wrong, which is no fault of the record: then nothing is set aside."""
    denied = references.fetch(reference("s3://closed/x.png"))
    assert wait([denied], 0.5).not_done
    references.fetch(SOUND).result(PATIENCE_SECONDS)
    error = denied.exception(PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp)
    assert error.reason == "reference_unreachable"
    assert "not permitted" in str(error)


def test_a_consumer_indexes_what_lies_in_a_bucket(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.set_options(references=POLICY, fetches=LIMITS)
    world.publish(upload("there", SOUND))
    world.publish(upload("gone", reference("s3://photos/none")))
    with world.running():
        world.wait_committed(2)
    assert world.searcher().find("there") is not None
    assert world.reasons() == ["reference_absent"]
