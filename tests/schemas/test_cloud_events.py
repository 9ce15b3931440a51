"""CloudEvents 1.0 in both modes of their Kafka binding."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fakes.hash_encoder import draw_picture
from fakes.sample_events import build_upload
from schemas.codec import EventDecoder, encode_event
from schemas.errors import BadEvent
from schemas.events import DeleteEvent, Event, ImageContent, TextContent, UploadEvent

NOW_MS = 1_763_630_000_000
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "A234",
    "source": "/shop",
    "type": "example.upload",
    "subject": "shoe-1",
    "time": "2026-11-20T09:12:31Z",
}
DATA = {"content": {"text": "a red shoe"}, "metadata": {"price": 4.5}}


def decode(value: bytes | None, headers: dict[str, str], key: bytes = b"shoe-1") -> Event | None:
    given = [(name, text.encode()) for name, text in headers.items()]
    return EventDecoder().decode(key=key, value=value, headers=given, timestamp_ms=NOW_MS)


def structured(content_type: str = "application/cloudevents+json", **members: Any) -> Event | None:
    return decode(json.dumps({**ATTRIBUTES, **members}).encode(), {"content-type": content_type})


def binary(value: bytes, content_type: str = "application/json", **attributes: str) -> Event | None:
    headers = {f"ce_{name}": text for name, text in {**ATTRIBUTES, **attributes}.items()}
    return decode(value, {**headers, "content-type": content_type})


def as_upload(event: Event | None) -> UploadEvent:
    assert isinstance(event, UploadEvent)
    return event


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(lambda: structured(data=DATA), id="structured"),
        pytest.param(
            lambda: structured("Application/CloudEvents+JSON; charset=utf-8", data=DATA), id="with charset"
        ),
        pytest.param(
            lambda: structured(data_base64=base64.b64encode(json.dumps(DATA).encode()).decode()), id="base64"
        ),
        pytest.param(lambda: structured("application/json", data=DATA), id="a general content-type"),
        pytest.param(lambda: binary(json.dumps(DATA).encode()), id="binary"),
        pytest.param(
            lambda: binary(json.dumps(DATA).encode(), "application/vnd.shop+json"), id="another JSON"
        ),
    ],
)
def test_attributes_give_what_the_data_does_not_say(event: Any) -> None:
    upload = as_upload(event())
    assert (upload.content_id, upload.event_id, upload.source) == ("shoe-1", "A234", "/shop")
    assert upload.occurred_at.isoformat() == "2026-11-20T09:12:31+00:00"
    assert (upload.content, upload.metadata) == (TextContent("a red shoe"), {"price": 4.5})


def test_the_data_comes_before_the_attributes() -> None:
    own = {**DATA, "content_id": "shoe-1", "event_id": "own", "source": "own", "occurred_at": NOW_MS}
    upload = as_upload(structured(subject="other", data=own))
    assert (upload.event_id, upload.source) == ("own", "own")
    assert upload.occurred_at.timestamp() * 1000 == NOW_MS


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_the_data_may_be_a_picture(kind: str) -> None:
    picture = draw_picture(1)
    assert as_upload(binary(picture, kind)).content == ImageContent(picture)
    encoded = base64.b64encode(picture).decode()
    assert as_upload(structured(datacontenttype=kind, data_base64=encoded)).content == ImageContent(picture)


def test_the_data_may_be_a_text() -> None:
    assert as_upload(binary("ein roter Schuh ä".encode(), "text/plain")).content == TextContent(
        "ein roter Schuh ä"
    )
    assert as_upload(structured(datacontenttype="text/plain", data="red")).content == TextContent("red")


def test_the_data_may_be_an_event_in_avro() -> None:
    event = build_upload()
    assert binary(encode_event(event).value, "application/avro") == event


def test_a_delete_and_a_null_value_delete() -> None:
    assert isinstance(structured(data={"operation": "delete"}), DeleteEvent)
    assert isinstance(decode(None, {"ce_specversion": "1.0", "ce_subject": "x"}), DeleteEvent)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        pytest.param(lambda: structured(specversion="0.3", data=DATA), "undecodable", id="another version"),
        pytest.param(lambda: structured("application/cloudevents-batch+json"), "undecodable", id="a batch"),
        pytest.param(lambda: structured(), "empty_content", id="no data"),
        pytest.param(lambda: structured(data=[1]), "invalid_field", id="a list as data"),
        pytest.param(lambda: structured(data_base64="!"), "invalid_field", id="broken base64"),
        pytest.param(lambda: structured(data_base64=7), "invalid_field", id="base64 a number"),
        pytest.param(
            lambda: structured(datacontenttype="image/png", data="x"), "invalid_field", id="picture a text"
        ),
        pytest.param(
            lambda: structured(datacontenttype="text/plain", data=7), "invalid_field", id="text a number"
        ),
        pytest.param(lambda: structured(subject="other", data=DATA), "key_mismatch", id="another key"),
        pytest.param(lambda: structured(subject=None, data=DATA), "invalid_field", id="no id"),
        pytest.param(lambda: structured(time="yesterday", data=DATA), "invalid_field", id="no time"),
        pytest.param(lambda: binary(b"{", "application/json"), "undecodable", id="broken JSON"),
        pytest.param(lambda: binary(b"\xff", "text/plain"), "not_unicode", id="text not Unicode"),
        pytest.param(lambda: binary(b"\xff", "application/json"), "not_unicode", id="JSON not Unicode"),
    ],
)
def test_a_cloudevent_that_is_no_upload_is_set_aside_with_its_reason(event: Any, reason: str) -> None:
    with pytest.raises(BadEvent) as caught:
        event()
    assert caught.value.reason == reason
