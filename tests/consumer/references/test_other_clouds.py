"""References into `gs://` and `az://`: bounds and redirects are as in `s3://`.

Google's storage is played by a small server. It cannot tell a good signature from a bad one, so signed
addresses are tried on Azurite, which does.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import obstore
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from consumer.backoff import Backoff
from consumer.references.fetching import FetchLimits, ReferenceGivenUp, References
from consumer.references.policy import ReferencePatience, ReferencePolicy
from consumer.telemetry.metrics import Metrics
from fakes.hash_encoder import draw_picture
from schemas.events import ContentReference
from service.buckets import open_bucket
from tests.consumer.running import PATIENCE_SECONDS
from tests.object_stores.servers import ObjectServer

PICTURE = draw_picture(1)
MAX_BYTES = len(PICTURE) + 1
KEY = "a b/schön+50%.png"
PRIVATE_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ACCOUNT = {
    "type": "service_account",
    "client_email": "reader@project.example",
    "private_key_id": "1",
    "private_key": PRIVATE_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode(),
}


@dataclass
class FakeGoogle:
    """Has `PICTURE` under every key but those that name a status; "large" has more than is allowed."""

    redirects_to: str = ""
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        key = handler.path.partition("?")[0].rpartition("/")[2]
        status = int(key) if key.isdigit() else 200
        handler.send_response(status)
        if 300 <= status < 400:
            handler.send_header("Location", f"{self.redirects_to}{handler.path}")
        handler.send_header("ETag", '"1"')
        handler.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        body = PICTURE if status == 200 else b""
        body += bytes(2) if key == "large" else b""
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    yield from serving(FakeGoogle())


def serving(fake: FakeGoogle) -> Iterator[FakeGoogle]:

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fake.address = f"http://127.0.0.1:{server.server_port}"
        yield fake
        server.shutdown()


@pytest.fixture
def elsewhere() -> Iterator[FakeGoogle]:
    """Another host inside the network, which has everything."""
    yield from serving(FakeGoogle())


@pytest.fixture(params=["a key of a service account", "a public bucket"])
def credentials(
    request: pytest.FixtureRequest, google: FakeGoogle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", google.address)
    if request.param == "a public bucket":
        monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        return
    account = tmp_path / "account.json"
    account.write_text(json.dumps(ACCOUNT))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))


@pytest.fixture
def references() -> Iterator[References]:
    policy = ReferencePolicy(buckets=frozenset({"gs://photos"}), max_size_bytes=MAX_BYTES)
    yield from running(policy)


def running(policy: ReferencePolicy) -> Iterator[References]:
    limits = FetchLimits(
        timeout_seconds=20.0, patience=ReferencePatience(0.05, 0.05), backoff=Backoff(0.01, 0.02)
    )
    references = References(policy, limits, failing=Metrics().references_failing)
    references.start()
    yield references
    references.close(PATIENCE_SECONDS)


def reference(uri: str, etag: str | None = None) -> ContentReference:
    return ContentReference(uri, None, None, "image", etag)


def given_up(references: References, wanted: ContentReference) -> ReferenceGivenUp:
    error = references.fetch(wanted).exception(PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp)
    return error


@pytest.mark.usefixtures("credentials")
def test_an_object_of_google_is_fetched_by_its_own_address(
    references: References, google: FakeGoogle
) -> None:
    uri = f"gs://photos/{quote(KEY)}"
    assert references.fetch(reference(uri, "1")).result(PATIENCE_SECONDS) == PICTURE
    [asked] = google.asked
    assert unquote(asked.partition("?")[0]) == f"/photos/{KEY}"


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_google_is_not_followed(
    references: References, google: FakeGoogle, elsewhere: FakeGoogle, status: int
) -> None:
    google.redirects_to = elsewhere.address.replace("127.0.0.1", "localhost")
    error = given_up(references, reference(f"gs://photos/{status}"))
    assert error.reason == "reference_unreachable"
    assert f"answered {status}: redirects are not followed" in str(error)
    assert elsewhere.asked == []


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        pytest.param("404", "reference_absent", id="no such object"),
        pytest.param("403", "reference_unreachable", id="not permitted"),
        pytest.param("503", "reference_unreachable", id="out of order"),
        pytest.param("large", "reference_too_large", id="more bytes than are allowed"),
        pytest.param("", "reference_refused", id="no key"),
        pytest.param("a/../b", "reference_refused", id="dots"),
        pytest.param("a//b", "reference_refused", id="an empty part"),
        pytest.param("%00", "reference_refused", id="a zero byte"),
        pytest.param("\ud800", "reference_refused", id="half a surrogate pair"),
    ],
)
def test_what_google_does_not_give_is_given_up(references: References, key: str, reason: str) -> None:
    assert given_up(references, reference(f"gs://photos/{key}")).reason == reason


@pytest.mark.usefixtures("credentials")
def test_another_digest_size_or_version_is_given_up(references: References) -> None:
    uri, digest = "gs://photos/x.png", hashlib.sha256(PICTURE).hexdigest()
    wrong = [
        (ContentReference(uri, "0" * 64, len(PICTURE), "image"), "digest_mismatch"),
        (ContentReference(uri, digest, len(PICTURE) - 1, "image"), "size_mismatch"),
        (reference(uri, "2"), "etag_mismatch"),
    ]
    for wanted, reason in wrong:
        assert given_up(references, wanted).reason == reason
    assert references.fetch(reference(uri)).result(PATIENCE_SECONDS) == PICTURE


def test_a_key_with_a_number_sign_is_fetched_whole(
    references: References, google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that obstore signs ends before the number sign: it would be another object's."""
    monkeypatch.setenv("GOOGLE_BASE_URL", google.address)
    monkeypatch.setenv(
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        json.dumps({**ACCOUNT, "gcs_base_url": google.address, "disable_oauth": True}),
    )
    assert references.fetch(reference("gs://photos/a%23b.png")).result(PATIENCE_SECONDS) == PICTURE
    [asked] = google.asked
    assert unquote(asked) == "/photos/a#b.png"


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("credentials", ["a key of a service account"], indirect=True)
def test_a_bad_key_that_comes_first_does_not_end_signing(references: References, google: FakeGoogle) -> None:
    assert given_up(references, reference("gs://photos/a//b")).reason == "reference_refused"
    assert references.fetch(reference("gs://photos/x.png")).result(PATIENCE_SECONDS) == PICTURE
    assert ["X-Goog-Signature" in asked for asked in google.asked] == [True]


def test_credentials_that_sign_nothing_still_read(
    references: References, google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", google.address)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    assert references.fetch(reference("gs://photos/x.png")).result(PATIENCE_SECONDS) == PICTURE


def test_an_object_of_azure_is_fetched_through_a_signed_address(
    azurite_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in azurite_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket, key = azurite_server.new_bucket(), "photos/a+b.png"
    obstore.put(open_bucket(bucket, 20.0), key, PICTURE)
    monkeypatch.setattr("obstore.get_async", None)  # which would follow redirects
    for references in running(ReferencePolicy(buckets=frozenset({bucket}))):
        fetched = references.fetch(reference(f"{bucket}/{quote(key)}"))
        assert fetched.result(PATIENCE_SECONDS) == PICTURE
        assert given_up(references, reference(f"{bucket}/none")).reason == "reference_absent"


@pytest.mark.parametrize("key", [KEY, "a#b?c.png"])
def test_a_key_of_azure_that_needs_encoding_is_fetched_too(
    azurite_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    for name, value in azurite_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = azurite_server.new_bucket()
    obstore.put(open_bucket(bucket, 20.0), key, PICTURE)
    for references in running(ReferencePolicy(buckets=frozenset({bucket}))):
        fetched = references.fetch(reference(f"{bucket}/{quote(key)}"))
        assert fetched.result(PATIENCE_SECONDS) == PICTURE


def test_a_public_container_of_azure_is_asked_without_a_signature(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_ENDPOINT", google.address)
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    for references in running(ReferencePolicy(buckets=frozenset({"az://photos"}))):
        assert references.fetch(reference("az://photos/x.png")).result(PATIENCE_SECONDS) == PICTURE
    assert google.asked == ["/photos/x.png"]
