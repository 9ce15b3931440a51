"""References into a bucket, against moto's S3 server: what is fetched, and what is given up and why."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from consumer.backoff import Backoff
from consumer.references.fetching import FetchLimits, ReferenceGivenUp, References
from consumer.references.policy import ReferencePatience, ReferencePolicy
from consumer.references.signed_objects import open_bucket_session
from consumer.references.stores import BucketStore
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
        pytest.param(ContentReference(SOUND.uri, None, None, "image"), PICTURE, id="no digest and no size"),
        pytest.param(
            ContentReference(SOUND.uri, None, None, "image", hashlib.md5(PICTURE).hexdigest()),
            PICTURE,
            id="the entity tag of this version",
        ),
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
        pytest.param(
            ContentReference(SOUND.uri, None, None, "image", "0" * 32), "etag_mismatch", id="another version"
        ),
        pytest.param(reference("s3://photos/a//b.png"), "reference_refused", id="an empty part of a key"),
        pytest.param(reference("s3://photos/.."), "reference_refused", id="dots for a key"),
        pytest.param(reference("s3://photos/%00"), "reference_refused", id="a zero byte"),
        pytest.param(reference("s3://photos/%0A"), "reference_refused", id="a line feed"),
        pytest.param(reference("s3://photos/\ud800"), "reference_refused", id="half a surrogate pair"),
        pytest.param(reference("s3://photos"), "reference_refused", id="no key"),
        pytest.param(reference("s3://photos/"), "reference_refused", id="an empty key"),
        pytest.param(reference("s3://elsewhere/x"), "reference_refused", id="a bucket that nobody allowed"),
    ],
)
def test_what_is_not_the_promised_object_is_given_up(
    references: References, wanted: ContentReference, reason: str
) -> None:
    error = references.fetch(wanted).exception(PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp)
    assert error.reason == reason


def test_a_bucket_that_denies_is_given_up_although_nothing_else_is_fetched(references: References) -> None:
    """Its answer proves that it is there. If all are denied, the flood of dead letters stops the consumer."""
    error = references.fetch(reference("s3://closed/x.png")).exception(PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp)
    assert error.reason == "reference_unreachable"
    assert "not permitted" in str(error)


class Moody(BaseHTTPRequestHandler):
    """Answers each key with the status that it names, and breaks off in the middle of another one."""

    def do_GET(self) -> None:
        key = self.path.rpartition("/")[2]
        status = int(key) if key.isdigit() else 200
        self.send_response(status)
        for name, value in (("Content-Length", "100"), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")):
            self.send_header(name, value if status == 200 or name != "Content-Length" else "0")
        self.end_headers()
        if status == 200:
            self.wfile.write(b"not all of it")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Moody) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


@pytest.mark.parametrize("key", ["500", "503", "429", "401", "403", "409", "301", "broken-off"])
def test_whatever_a_bucket_answers_the_reference_ends(moody: None, references: References, key: str) -> None:
    error = references.fetch(reference(f"s3://photos/{key}")).exception(PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp)
    assert error.reason == "reference_unreachable"


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another host, which has the object, and the requests that reach it."""
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            for name, value in (
                ("Content-Length", str(len(PICTURE))),
                ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(PICTURE)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_an_endpoint_is_not_followed_to_another_host(
    references: References,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: tuple[str, list[str]],
    status: int,
) -> None:
    address, asked = elsewhere

    class Redirecting(Moody):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", f"{address}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        error = references.fetch(SOUND).exception(PATIENCE_SECONDS)
        server.shutdown()
    assert isinstance(error, ReferenceGivenUp)
    assert error.reason == "reference_unreachable"
    assert f"answered {status}: redirects are not followed" in str(error)
    assert asked == []


def test_a_public_bucket_is_asked_without_a_signature_and_without_looking_for_credentials(
    references: References, monkeypatch: pytest.MonkeyPatch, elsewhere: tuple[str, list[str]]
) -> None:
    address, asked = elsewhere
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert references.fetch(SOUND).result(PATIENCE_SECONDS) == PICTURE
    assert asked == ["/photos/a%20b/sch%C3%B6n.png"]


def test_a_proxy_of_the_environment_is_used_as_before(
    references: References, monkeypatch: pytest.MonkeyPatch, elsewhere: tuple[str, list[str]]
) -> None:
    address, asked = elsewhere
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.internal")
    assert references.fetch(SOUND).result(PATIENCE_SECONDS) == PICTURE
    [path] = asked
    assert path.startswith("http://store.internal/photos/a%20b/sch%C3%B6n.png?X-Amz-")


def test_an_object_that_is_stored_compressed_is_taken_as_it_is_stored(
    references: References, endpoint: str
) -> None:
    """Its digest is that of the stored bytes."""
    data = gzip.compress(PICTURE)
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    s3.put_object(Bucket="photos", Key="compressed", Body=data, ContentEncoding="gzip")
    s3.close()
    assert references.fetch(reference("s3://photos/compressed", data)).result(PATIENCE_SECONDS) == data


def test_a_bucket_that_does_not_answer_is_waited_for_while_nothing_else_is_fetched(
    references: References, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    unanswered = references.fetch(reference("s3://photos/x.png"))
    assert wait([unanswered], 0.5).not_done


@pytest.mark.parametrize(
    ("variables", "is_allowed"),
    [
        pytest.param({}, False, id="the clouds' own endpoints"),
        pytest.param({"AWS_ENDPOINT_URL": "https://store.internal"}, False, id="an endpoint with TLS"),
        pytest.param({"AWS_ENDPOINT_URL": "http://store.internal"}, True, id="an endpoint without TLS"),
        pytest.param({"AZURE_STORAGE_ENDPOINT": "HTTP://store.internal"}, True, id="of another cloud"),
        pytest.param({"AWS_METADATA_ENDPOINT": "http://169.254.169.254"}, False, id="not where objects are"),
    ],
)
async def test_plain_http_is_used_only_if_the_operator_names_an_endpoint_with_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_allowed: bool
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with open_bucket_session(1.0) as session:
        store = BucketStore(session, 1.0)._build("s3://photos")
    assert store.client_options is not None
    assert store.client_options["allow_http"] == str(is_allowed).lower()


def test_a_consumer_indexes_what_lies_in_a_bucket(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.set_options(references=POLICY, fetches=LIMITS)
    world.publish(upload("there", SOUND))
    world.publish(upload("gone", reference("s3://photos/none")))
    with world.running():
        world.wait_committed(2)
    assert world.searcher().find("there") is not None
    assert world.reasons() == ["reference_absent"]
