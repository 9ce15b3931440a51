"""Uploads and deletes over HTTP: judged as the consumer judges them, then published."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from consumer.registry.asked_schemas import AskedSchemas
from consumer.registry.kept_schemas import KeptSchemas
from event_log.errors import RecordTooLarge, TopicMissing, TransientLogError
from event_log.memory.clients import MemoryLog, MemoryPublisher
from event_log.schema_registry.client import RegistryClient
from event_log.schema_registry.settings import RegistrySettings
from event_log.schema_registry.writing import Framing, register_for
from fakes.hash_encoder import draw_picture
from query_api.uploads.large_contents import LargeContents
from query_api.uploads.publishing import PublishSettings
from schemas.codec import EventDecoder
from schemas.events import ContentReference, DeleteEvent, ImageContent, PatchEvent, TextContent, UploadEvent
from schemas.framed_writing import FramedEncoder
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
PNG = draw_picture(1)
UPLOAD = {
    "content_id": "t-new",
    "content": {"text": "a red hat"},
    "source": "shop",
    "owner_id": "ann",
    "version": 3,
    "occurred_at": "2026-03-01T12:30:15.250Z",
    "link": "https://shop.example/t-new",
    "metadata": {"price": 2, "new": True},
}


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    return log


@pytest.fixture
async def client(small_index: SmallIndex, start_service: StartService, log: MemoryLog) -> Client:
    return await start_service(small_index, publisher=MemoryPublisher(log))


def events_of(log: MemoryLog, registry: RegistryClient | None = None) -> list[Any]:
    """Decode what was published, as the consumer does."""
    with log.changed:
        records = list(log.partition(TOPIC, 0).records)
    kept = KeptSchemas(Path("/nonexistent"), "")
    decode = EventDecoder(registry=None if registry is None else AskedSchemas(registry, kept)).decode
    return [decode(key=r.key, value=r.value, headers=r.headers, timestamp_ms=r.timestamp_ms) for r in records]


async def test_a_json_upload_is_published_and_its_place_answered(client: Client, log: MemoryLog) -> None:
    response = await client.post("/v1/contents", json=UPLOAD)
    answer = await response.json()
    assert response.status == 202
    assert answer["timings"].keys() >= {"read_ms", "prepare_ms", "publish_ms"}
    del answer["timings"]
    place = {"topic": TOPIC, "partition": 0, "offset": 0, "next_offset": 1, "shard": f"{TOPIC}-0"}
    assert answer == {"content_id": "t-new", **place}
    [event] = events_of(log)
    assert event == UploadEvent(
        event_id="",
        content_id="t-new",
        source="shop",
        occurred_at=event.occurred_at,
        content=TextContent("a red hat"),
        version=3,
        owner_id="ann",
        link="https://shop.example/t-new",
        metadata={"price": 2.0, "new": True},
    )
    assert event.occurred_at.isoformat() == "2026-03-01T12:30:15.250000+00:00"


@pytest.mark.parametrize("framing", ["prefix", "header"])
async def test_an_upload_is_framed_for_a_schema_registry_when_told_so(
    small_index: SmallIndex, start_service: StartService, log: MemoryLog, framing: Framing
) -> None:
    registry = RegistryClient(RegistrySettings("mock://registry"))
    encode = FramedEncoder(register_for(registry, framing), TOPIC).encode
    publish = PublishSettings(topic=TOPIC, encode=encode)
    client = await start_service(small_index, publisher=MemoryPublisher(log), publish=publish)
    assert (await client.post("/v1/contents", json=UPLOAD)).status == 202
    [event] = events_of(log, registry)
    assert event.content == TextContent("a red hat")
    with log.changed:
        [record] = log.partition(TOPIC, 0).records
    assert record.value is not None
    assert record.value.startswith(b"\0\0\0\0\1") == (framing == "prefix")
    assert [name for name, _ in record.headers] == (["__value_schema_id"] if framing == "header" else [])


async def test_an_upload_says_that_the_schema_registry_cannot_be_used(
    small_index: SmallIndex, start_service: StartService, log: MemoryLog
) -> None:
    with closing(RegistryClient(RegistrySettings("http://127.0.0.1:9"))) as registry:
        encode = FramedEncoder(register_for(registry, "prefix"), TOPIC).encode
        publish = PublishSettings(topic=TOPIC, encode=encode)
        client = await start_service(small_index, publisher=MemoryPublisher(log), publish=publish)
        response = await client.post("/v1/contents", json=UPLOAD)
    assert response.status == 503
    assert "schema registry" in (await response.json())["error"]["message"]


async def test_a_picture_comes_in_base64_in_a_form_or_as_the_body_itself(
    client: Client, log: MemoryLog
) -> None:
    in_json = {"content_id": "p", "content": {"image": base64.urlsafe_b64encode(PNG).decode().rstrip("=")}}
    plain = FormData()
    plain.add_field("image", PNG, filename="p.png", content_type="image/png")
    plain.add_field("content_id", "p")
    plain.add_field("metadata", '{"colour": "red"}')
    with_event = FormData()
    with_event.add_field("image", PNG, filename="p.png", content_type="image/png")
    with_event.add_field("event", json.dumps({"content_id": "p", "metadata": {"colour": "red"}}))
    params = {"content_id": "p", "metadata": '{"colour": "red"}', "occurred_at": "1772368215250"}
    png = {"Content-Type": "image/png"}
    answers = [
        await client.post("/v1/contents", json=in_json),
        await client.post("/v1/contents", data=plain),
        await client.post("/v1/contents", data=with_event),
        await client.post("/v1/contents", data=PNG, params=params, headers=png),
    ]
    assert [answer.status for answer in answers] == [202] * 4
    events = events_of(log)
    assert [event.content for event in events] == [ImageContent(PNG)] * 4
    assert [event.metadata for event in events[1:]] == [{"colour": "red"}] * 3


@pytest.mark.parametrize(
    "kind",
    [
        "image/png",
        "image/jpg",
        "image/pjpeg",
        "image/x-png",
        "IMAGE/JPEG",
        "image/tiff",
        "image/*",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/pdf",
        None,
    ],
)
async def test_a_picture_is_taken_under_any_media_type_because_its_bytes_decide(
    client: Client, log: MemoryLog, kind: str | None
) -> None:
    response = await client.post(
        "/v1/contents",
        data=PNG,
        params={"content_id": "p"},
        headers={} if kind is None else {"Content-Type": kind},
        skip_auto_headers=["Content-Type"],
    )
    assert response.status == 202, await response.text()
    [event] = events_of(log)
    assert event.content == ImageContent(PNG)


async def test_a_title_and_lists_of_texts_come_in_json_in_a_form_or_in_the_query_string(
    client: Client, log: MemoryLog
) -> None:
    form = FormData({"content_id": "f", "title": "A hat", "metadata": '{"tags": ["new", "sale"]}'})
    form.add_field("image", draw_picture(4), content_type="image/png", filename="hat.png")
    described = {"title": "A hat", "metadata": {"tags": ["new", "sale"]}}
    responses = [
        await client.post("/v1/contents", json=changed(**described)),
        await client.post("/v1/contents", data=form),
        await client.post(
            "/v1/contents",
            params={"content_id": "q", "title": "A hat", "metadata": '{"tags": ["new", "sale"]}'},
            data=draw_picture(4),
        ),
    ]
    assert [response.status for response in responses] == [202, 202, 202]
    for event in events_of(log):
        assert isinstance(event, UploadEvent)
        assert (event.title, event.metadata) == ("A hat", {"tags": ("new", "sale")})


async def test_a_text_may_be_the_body(client: Client, log: MemoryLog) -> None:
    params = {"content_id": "t", "owner_id": "ann"}
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    response = await client.post(
        "/v1/contents", data="ein Hut, größer".encode(), params=params, headers=headers
    )
    assert response.status == 202
    [event] = events_of(log)
    assert (event.content, event.owner_id) == (TextContent("ein Hut, größer"), "ann")


async def test_a_delete_is_published(client: Client, log: MemoryLog) -> None:
    response = await client.delete("/v1/contents/a%2Fb%20c", params={"version": "9"})
    assert response.status == 202
    [event] = events_of(log)
    assert isinstance(event, DeleteEvent)
    assert (event.content_id, event.version) == ("a/b c", 9)


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**UPLOAD, **fields}.items() if value != "left out"}


BAD = {
    "no id": (changed(content_id="left out"), 422, "missing_field"),
    "an empty id": (changed(content_id=""), 422, "out_of_range"),
    "an id of too many bytes": (changed(content_id="ä" * 300), 422, "content_id_too_long"),
    "no content": (changed(content="left out"), 422, "empty_content"),
    "an empty content": (changed(content={}), 422, "invalid_field"),
    "two contents": (changed(content={"text": "a", "image": "YQ=="}), 422, "invalid_field"),
    "a blank text": (changed(content={"text": " "}), 422, "empty_content"),
    "no picture": (changed(content={"image": "YWJj"}), 415, "not_an_image"),
    "a picture that is cut off": (
        changed(content={"image": base64.b64encode(PNG[:-30]).decode()}),
        422,
        "truncated_image",
    ),
    "no base64": (changed(content={"image": "?"}), 422, "invalid_field"),
    "a reference": (changed(content={"reference": {"uri": "file:///etc/passwd"}}), 422, "unknown_field"),
    "an unknown field": (changed(model="mine"), 422, "unknown_field"),
    "an unknown operation": (changed(operation="truncate"), 422, "invalid_value"),
    "a time without zone": (changed(occurred_at="2026-03-01T12:30:15"), 422, "invalid_field"),
    "a time in seconds": (changed(occurred_at=1772368215), 422, "invalid_field"),
    "a version beyond 64 bits": (changed(version=2**63), 422, "out_of_range"),
    "metadata of objects": (changed(metadata={"a": {}}), 422, "invalid_value"),
    "a list of numbers": (changed(metadata={"a": [1]}), 422, "invalid_value"),
    "a list in a list": (changed(metadata={"a": [["x"]]}), 422, "invalid_value"),
    "a list of too many texts": (changed(metadata={"a": ["x"] * 65}), 422, "out_of_range"),
    "a title that is too long": (changed(title="靴" * 513), 422, "out_of_range"),
    "too much metadata": (changed(metadata={str(n): n for n in range(65)}), 422, "metadata_too_large"),
    "an integer that no double holds": (changed(metadata={"id": 2**53 + 1}), 422, "invalid_field"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD.values(), ids=BAD)
async def test_what_would_become_a_dead_letter_is_refused_and_not_published(
    client: Client, log: MemoryLog, body: Any, status: int, code: str
) -> None:
    response = await client.post("/v1/contents", json=body)
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert events_of(log) == []


@pytest.mark.parametrize("text", ["word " * 5000, "红色连衣裙" * 2000], ids=["English", "Chinese"])
async def test_a_text_that_does_not_fit_is_published_whole(client: Client, log: MemoryLog, text: str) -> None:
    response = await client.post("/v1/contents", json=changed(content={"text": text}))
    assert response.status in (200, 201, 202)
    [event] = events_of(log)
    assert isinstance(event, UploadEvent)
    assert event.content == TextContent(text)


RAW = {
    "of no known type": ({}, "application/pdf", b"%PDF", 415, "unsupported_media_type"),
    "that is no picture": ({}, "image/png", b"words", 415, "not_an_image"),
    "that is no picture and of no type": ({}, "application/octet-stream", b"words", 415, "not_an_image"),
    "that is a page": ({}, "text/html", b"<p>words</p>", 415, "unsupported_media_type"),
    "that is not UTF-8": ({}, "text/plain", b"\xff", 422, "not_unicode"),
    "that is empty": ({}, "image/png", b"", 422, "empty_content"),
    "with an unknown parameter": ({"uri": "x"}, "text/plain", b"a", 422, "unknown_field"),
    "with metadata that are no JSON": ({"metadata": "{"}, "text/plain", b"a", 400, "bad_json"),
    "with a version that is no number": ({"version": "x"}, "text/plain", b"a", 422, "invalid_value"),
    "waiting for something else": ({"wait": "forever"}, "text/plain", b"a", 422, "invalid_value"),
}


@pytest.mark.parametrize(("params", "kind", "body", "status", "code"), RAW.values(), ids=RAW)
async def test_a_bad_body_is_refused(
    client: Client, params: dict[str, str], kind: str, body: bytes, status: int, code: str
) -> None:
    response = await client.post(
        "/v1/contents", data=body, params={"content_id": "x", **params}, headers={"Content-Type": kind}
    )
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_two_contents_in_one_form_are_refused(client: Client) -> None:
    form = FormData({"content_id": "x", "text": "words"})
    form.add_field("image", PNG, filename="p.png", content_type="image/png")
    response = await client.post("/v1/contents", data=form)
    assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_multipart")


async def test_without_a_publisher_uploads_and_deletes_are_refused_before_the_body_is_judged(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index)
    for response in (
        await client.post("/v1/contents", data=b"{", headers={"Content-Type": "application/json"}),
        await client.delete("/v1/contents/t-red"),
    ):
        assert (response.status, (await response.json())["error"]["code"]) == (403, "publishing_off")


FAULTS = {
    "away": (TransientLogError("away"), 503, "log_unavailable"),
    "without the topic": (TopicMissing(TOPIC), 503, "log_unavailable"),
    "unwilling to take so much": (RecordTooLarge("12 MB"), 413, "content_too_large"),
}


@pytest.mark.parametrize(("fault", "status", "code"), FAULTS.values(), ids=FAULTS)
async def test_a_log_that_is_in_trouble_is_told(
    client: Client, log: MemoryLog, fault: Any, status: int, code: str
) -> None:
    log.fail_next("publish", fault)
    response = await client.post("/v1/contents", json=UPLOAD)
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert ("Retry-After" in response.headers) == (status == 503)


async def test_a_content_above_the_inline_limit_is_stored_by_digest_and_referred_to(
    small_index: SmallIndex, start_service: StartService, log: MemoryLog, tmp_path: Path
) -> None:
    publish = PublishSettings(large_contents=LargeContents(100, tmp_path / "large"))
    client = await start_service(small_index, publisher=MemoryPublisher(log), publish=publish)
    params = {"content_id": "p"}
    for _ in range(2):  # the second finds it stored
        response = await client.post(
            "/v1/contents", data=PNG, params=params, headers={"Content-Type": "image/png"}
        )
        assert response.status == 202
    digest = hashlib.sha256(PNG).hexdigest()
    [stored] = [path for path in (tmp_path / "large").rglob("*") if path.is_file()]
    assert stored.read_bytes() == PNG
    for event in events_of(log):
        assert event.content == ContentReference(stored.as_uri(), digest, len(PNG), "image")


async def test_a_large_content_that_cannot_be_stored_is_a_503_and_published_nowhere(
    small_index: SmallIndex, start_service: StartService, log: MemoryLog, tmp_path: Path
) -> None:
    (tmp_path / "large").write_text("no directory")
    publish = PublishSettings(large_contents=LargeContents(10, tmp_path / "large"))
    client = await start_service(small_index, publisher=MemoryPublisher(log), publish=publish)
    response = await client.post("/v1/contents", json=changed(content={"text": "twelve bytes"}))
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "log_unavailable")
    assert str(tmp_path) not in error["message"]
    assert events_of(log) == []


async def test_without_a_directory_for_large_contents_a_413_names_the_limit(
    small_index: SmallIndex, start_service: StartService, log: MemoryLog
) -> None:
    publish = PublishSettings(large_contents=LargeContents(10))
    client = await start_service(small_index, publisher=MemoryPublisher(log), publish=publish)
    response = await client.post("/v1/contents", json=changed(content={"text": "twelve bytes"}))
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (413, "content_too_large")
    assert "12 bytes, the limit is 10" in error["message"]


async def test_an_upload_that_is_not_searchable_in_time_is_a_504_with_its_offset(
    client: Client, log: MemoryLog
) -> None:
    for offset in range(4):  # the index covers three events of this shard already
        await client.post("/v1/contents", json=changed(content_id=f"t-{offset}"))
    params = {"wait": "searchable", "timeout_ms": "20"}
    response = await client.post("/v1/contents", json=UPLOAD, params=params)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (504, "not_searchable_in_time")
    place = {"shard": f"{TOPIC}-0", "offset": 4, "next_offset": 3, "required_next_offset": 5}
    assert error["details"] == [place]
    assert len(events_of(log)) == 5


async def test_an_upload_is_awaited_until_a_commit_covers_it(
    small_index: SmallIndex, client: Client, has_to_wait: asyncio.Event
) -> None:
    for offset in range(3):
        await client.post("/v1/contents", json=changed(content_id=f"t-{offset}"))
    waiting = asyncio.create_task(
        client.post("/v1/contents", json=changed(version="left out"), params={"wait": "searchable"})
    )
    await asyncio.wait_for(has_to_wait.wait(), PATIENCE_SECONDS)
    assert not waiting.done()
    small_index.commit(0, small_index.text("t-new", "a red hat"))
    answer = await (await waiting).json()
    assert answer["snapshot"][f"{TOPIC}-0"]["next_offset"] == 4


FATES = {
    "that the consumer sets aside": ("t-other", {}, 422, "set_aside"),
    "that a later event replaces": ("t-new t-new", {}, 409, "superseded"),
    "of an old version": ("t-blue", {"content_id": "t-blue", "version": 6}, 409, "superseded"),
}


@pytest.mark.parametrize(("committed", "fields", "status", "code"), FATES.values(), ids=FATES)
async def test_the_answer_says_why_an_upload_is_not_the_one_that_is_found(
    small_index: SmallIndex,
    client: Client,
    has_to_wait: asyncio.Event,
    committed: str,
    fields: dict[str, Any],
    status: int,
    code: str,
) -> None:
    for offset in range(3):
        await client.post("/v1/contents", json=changed(content_id=f"t-{offset}"))
    body = changed(version="left out") | fields
    waiting = asyncio.create_task(client.post("/v1/contents", json=body, params={"wait": "searchable"}))
    changes = [small_index.text(name, "x", version=fields.get("version")) for name in committed.split()]
    await asyncio.wait_for(has_to_wait.wait(), PATIENCE_SECONDS)
    small_index.commit(0, *changes)
    response = await waiting
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_a_merge_patch_is_published_as_a_patch_event(client: Client, log: MemoryLog) -> None:
    body = {"title": "hat", "link": None, "metadata": {"price": 3, "season": None, "tags": ["a"]}}
    response = await client.patch(
        "/v1/contents/t-new?source=shop",
        data=json.dumps(body),
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert response.status == 202, await response.text()
    [event] = events_of(log)
    assert event == PatchEvent(
        event_id="",
        content_id="t-new",
        source="shop",
        occurred_at=event.occurred_at,
        title="hat",
        metadata={"price": 3.0, "tags": ("a",)},
        remove=("link", "metadata.season"),
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_field"),
        ({"metadata": {}}, 422, "out_of_range"),
        ({"title": "x" * 513}, 422, "out_of_range"),
        ({"link": ""}, 422, "out_of_range"),
        ({"content": {"text": "a hat"}}, 422, "unknown_field"),
        ({"version": 3}, 422, "unknown_field"),
        ([], 422, "invalid_value"),
    ],
)
async def test_a_patch_that_breaks_a_rule_is_refused(
    client: Client, log: MemoryLog, body: Any, status: int, code: str
) -> None:
    response = await client.patch("/v1/contents/t-new", json=body)
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert events_of(log) == []
