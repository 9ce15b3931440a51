"""Uploads that are stored in a bucket (moto's S3 server) or a directory, and how their pictures are shown."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from moto.server import ThreadedMotoServer
from obstore.exceptions import BaseError
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from clip_index.reading.index_reader import IndexReader
from consumer.references.policy import ReferencePolicy
from event_log.memory.clients import MemoryPublisher
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.app import build_app
from query_api.opened_index import showing_links
from query_api.opened_uploads import open_contents_store
from query_api.options_from_settings import app_settings
from query_api.settings import QueryApiSettings, read_settings
from query_api.uploads.contents_store import BucketContents, media_type_of
from schemas.codec import EventDecoder
from schemas.events import ContentReference, UploadEvent
from service.environment import BadSettings
from tests.consumer.running import TOPIC, World

PNG = draw_picture(1)
DIGEST = hashlib.sha256(PNG).hexdigest()
KEY = f"{DIGEST[:2]}/{DIGEST}"
STORE = "s3://pictures/up-loads"
SECTION = "CLIPTIDE_QUERY_API__"
AS_PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store with an empty bucket, and the credentials that an operator sets."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    s3 = boto3.client("s3", endpoint_url=endpoint)
    s3.create_bucket(Bucket="pictures")
    yield s3
    s3.close()


@asynccontextmanager
async def storing_service(
    world: World, monkeypatch: pytest.MonkeyPatch, **variables: str
) -> AsyncIterator[TestClient[Any, Any]]:
    """A query service whose settings come from these variables, over the world's log and index."""
    monkeypatch.setenv("CLIPTIDE_TOPIC", TOPIC)
    for name, value in variables.items():
        monkeypatch.setenv(SECTION + name, value)
    settings = read_settings()
    contents = open_contents_store(settings.query_api)
    reader = showing_links(IndexReader(world.root, fingerprint=HashEncoder().fingerprint), contents)
    reader.reload()
    app = build_app(
        HashEncoder(),
        reader,
        CollectorRegistry(),
        app_settings(settings, contents),
        publisher=MemoryPublisher(world.log),
    )
    async with TestClient(TestServer(app)) as client:
        yield client


def events_of(world: World) -> list[UploadEvent]:
    decode = EventDecoder().decode
    with world.log.changed:
        records = list(world.log.partition(TOPIC, 0).records)
    events = [
        decode(key=r.key, value=r.value, headers=r.headers, timestamp_ms=r.timestamp_ms) for r in records
    ]
    return [event for event in events if isinstance(event, UploadEvent)]


async def test_a_picture_goes_into_the_bucket_is_indexed_from_it_and_shown_by_a_signed_address(
    s3: Any, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.set_options(references=ReferencePolicy(buckets=frozenset({"s3://pictures"})))
    with world.running():
        async with storing_service(world, monkeypatch, CONTENTS_STORE=STORE, CONTENTS_STORED="all") as client:
            for _ in range(2):  # the second finds it stored
                answer = await client.post(
                    "/v1/contents?content_id=p&wait=searchable", data=PNG, headers=AS_PNG
                )
                assert answer.status == 200, await answer.text()
            content = await (await client.get("/v1/contents/p")).json()
            found = await (await client.get("/v1/search?q=anything&modality=image")).json()
            browsed = await (await client.post("/v1/browse", json={"modality": "image"})).json()
            links = await (await client.post("/text_url?text_query=anything")).json()
            page = await client.get("/")
            policy = page.headers["Content-Security-Policy"]
    [listed] = s3.list_objects_v2(Bucket="pictures")["Contents"]
    assert listed["Key"] == f"up-loads/{KEY}"
    for event in events_of(world):
        assert event.content == ContentReference(f"{STORE}/{KEY}", DIGEST, len(PNG), "image")
        assert event.link == f"{STORE}/{KEY}"
    shown = {content["content"]["link"], *links}
    shown |= {hit["link"] for answer in (found, browsed) for hit in answer["results"]["image"]["hits"]}
    [link] = shown  # one address for half an hour, so that browsers can cache the picture
    async with ClientSession() as session, session.get(link) as opened:
        assert (await opened.read(), opened.content_type) == (PNG, "image/png")
    assert "X-Amz-Signature" in link
    assert urlsplit(endpoint).netloc in policy


async def test_a_public_address_is_the_link_that_is_published(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.build()
    async with storing_service(
        world,
        monkeypatch,
        CONTENTS_STORE=STORE,
        CONTENTS_BASE_URL="https://pictures.example.com/all/",
        INLINE_LIMIT_BYTES="100",
    ) as client:
        await client.post("/v1/contents?content_id=p", data=PNG, headers=AS_PNG)
        await client.post("/v1/contents?content_id=q&link=https://shop.example/q", data=PNG, headers=AS_PNG)
        await client.post("/v1/contents", json={"content_id": "small", "content": {"text": "a shoe"}})
        page = await client.get("/")
        assert "pictures.example.com" in page.headers["Content-Security-Policy"]
    picture, linked, small = events_of(world)
    assert picture.link == f"https://pictures.example.com/all/{KEY}"
    assert linked.link == "https://shop.example/q"
    assert isinstance(linked.content, ContentReference)
    assert small.link is None
    assert not isinstance(small.content, ContentReference)


async def test_a_directory_named_as_a_store_keeps_all_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "index")
    world.build()
    folder = tmp_path / "pic tures"
    async with storing_service(
        world, monkeypatch, CONTENTS_STORE=folder.as_uri(), CONTENTS_STORED="all"
    ) as client:
        answer = await client.post("/v1/contents?content_id=p", data=PNG, headers=AS_PNG)
        assert answer.status == 202
    [event] = events_of(world)
    assert (folder / KEY).read_bytes() == PNG
    assert event.content == ContentReference((folder / KEY).as_uri(), DIGEST, len(PNG), "image")
    assert event.link is None


async def test_a_bucket_that_is_not_there_is_a_503_and_nothing_is_published(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.build()
    async with storing_service(
        world, monkeypatch, CONTENTS_STORE="s3://missing", CONTENTS_STORED="all"
    ) as client:
        answer = await client.post("/v1/contents?content_id=p", data=PNG, headers=AS_PNG)
        error = json.loads(await answer.text())["error"]
    assert (answer.status, error["code"]) == (503, "log_unavailable")
    assert events_of(world) == []


def test_only_contents_of_the_store_are_signed(s3: Any) -> None:
    """A link comes from whoever uploads, and must not open other objects of the operator's bucket."""
    bucket = BucketContents(STORE)
    others: list[str | None] = [
        None,
        "https://shop.example/x",
        f"{STORE}/secrets.txt",
        f"{STORE}/{KEY}/../../secrets",
        f"s3://elsewhere/up-loads/{KEY}",
        f"s3://pictures/{KEY}",
        f"{STORE}/{KEY}?versionId=1",
    ]
    assert bucket.shown_links(others) == others
    [signed] = bucket.shown_links([f"{STORE}/{KEY}"])
    assert signed is not None
    assert signed.startswith("http://127.0.0.1:")


def test_a_bucket_whose_credentials_end_shows_no_address_and_fails_no_answer(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = BucketContents(STORE)

    def refuse(*_: object) -> None:
        raise BaseError("the token has expired\nand much more")

    monkeypatch.setattr("query_api.uploads.contents_store.obstore.sign", refuse)
    with capture_logs() as logs:
        assert bucket.shown_links([f"{STORE}/{KEY}"]) == [f"{STORE}/{KEY}"]
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("links cannot be signed", "the token has expired")
    ]


def test_without_credentials_that_sign_the_start_is_refused(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    said = "no credentials were found, such as AWS_ACCESS_KEY_ID"
    with pytest.raises(BadSettings, match=rf"^{SECTION}CONTENTS_STORE: {STORE} cannot be used: {said}$"):
        open_contents_store(QueryApiSettings(contents_store=STORE))


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        pytest.param({"CONTENTS_STORE": "pictures"}, "CONTENTS_STORE", id="no scheme"),
        pytest.param({"CONTENTS_STORE": "https://x.example/y"}, "CONTENTS_STORE", id="another scheme"),
        pytest.param({"CONTENTS_STORE": "s3://"}, "CONTENTS_STORE", id="no bucket"),
        pytest.param({"CONTENTS_STORE": "s3://x/a%20b"}, "CONTENTS_STORE", id="an escape in a folder"),
        pytest.param({"CONTENTS_STORE": "file://host/x"}, "CONTENTS_STORE", id="another machine"),
        pytest.param({"CONTENTS_STORED": "all"}, "CONTENTS_STORED", id="all, and no store"),
        pytest.param({"CONTENTS_BASE_URL": "https://x.example"}, "CONTENTS_BASE_URL", id="no store"),
        pytest.param(
            {"CONTENTS_STORE": "s3://x", "CONTENTS_BASE_URL": "x.example"}, "CONTENTS_BASE_URL", id="no URL"
        ),
        pytest.param(
            {"CONTENTS_STORE": "s3://x", "LARGE_CONTENTS_DIRECTORY": "/x"}, "CONTENTS_STORE", id="both"
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(SECTION + name, value)
    with pytest.raises(BadSettings, match=f"^{SECTION}{named}: "):
        read_settings()


@pytest.mark.parametrize(
    ("beginning", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
        (b"\x00\x00\x00\x1cftypavif", "image/avif"),
        (b"a text", "application/octet-stream"),
        (b"<script>", "application/octet-stream"),
    ],
)
def test_a_stored_content_has_the_type_that_its_first_bytes_tell(beginning: bytes, media_type: str) -> None:
    assert media_type_of(beginning) == media_type
