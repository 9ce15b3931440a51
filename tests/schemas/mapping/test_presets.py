"""The shipped mappings on records as the documents of the platforms show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import EventDecoder
from schemas.errors import BadEvent
from schemas.events import ContentReference, DeleteEvent, Event, TextContent, UploadEvent
from schemas.mapping.loading import load_mapping, preset_names

DOCUMENTED = Path(__file__).parent / "documented"
NOW_MS = 1_763_630_000_000


def decode(preset: str, value: bytes | None, key: bytes | None = None, **headers: str) -> Event | None:
    decoder = EventDecoder(mapping=load_mapping(preset))
    given = [(name, text.encode()) for name, text in headers.items()]
    return decoder.decode(key=key, value=value, headers=given, timestamp_ms=NOW_MS)


def documented(name: str, **changes: Any) -> bytes:
    document = json.loads((DOCUMENTED / f"{name}.json").read_text())
    return json.dumps(document | changes).encode()


def upload(preset: str, name: str, key: bytes | None = None, **headers: str) -> UploadEvent:
    event = decode(preset, documented(name), key, **headers)
    assert isinstance(event, UploadEvent)
    return event


def test_there_are_these_presets() -> None:
    expected = ("cloudevents", "connect-json", "debezium", "debezium-outbox", "s3-notification")
    assert preset_names() == expected


def test_an_upload_into_minio_is_a_reference_to_its_object() -> None:
    event = upload("s3-notification", "minio-put", b"photos/summer/red+dress+1.jpg")
    assert event.content_id == "photos/summer/red dress 1.jpg"
    assert event.content == ContentReference(
        "s3://photos/summer/red%20dress%201.jpg", None, 48213, "image", "5f1c8d2b7f3b1f4f2a4c5d6e7f8091a2"
    )
    assert (event.title, event.source) == ("summer/red dress 1.jpg", "minio:s3")
    assert event.metadata == {"bucket": "photos", "content_type": "image/jpeg"}
    assert event.occurred_at.isoformat() == "2026-11-20T09:12:31.518000+00:00"


def test_a_text_in_s3_is_known_by_its_name_and_removed_by_the_same_id() -> None:
    created = upload("s3-notification", "s3-put")
    assert created.content.modality == "text"
    assert created.content_id == "shop-uploads/notes/café.txt"
    removed = decode("s3-notification", documented("s3-delete"))
    assert isinstance(removed, DeleteEvent)
    assert removed.content_id == created.content_id


def test_an_object_in_cloud_storage_has_its_generation_as_version() -> None:
    event = upload("s3-notification", "gcs-finalize", eventType="OBJECT_FINALIZE")
    assert event.content == ContentReference("gs://shop-uploads/summer/red%20dress.png", None, 20480, "image")
    assert event.version == 1732093951518000
    removed = decode("s3-notification", documented("gcs-finalize"), eventType="OBJECT_DELETE")
    assert isinstance(removed, DeleteEvent)
    assert (removed.content_id, removed.version) == (event.content_id, event.version)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(documented("s3-put").replace(b"caf%C3%A9.txt", b""), id="a folder"),
        pytest.param(documented("s3-put").replace(b"ObjectCreated:Put", b"ObjectTagging:Put"), id="tags"),
        pytest.param(b'{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}', id="a test message"),
        pytest.param(None, id="a null value"),
    ],
)
def test_what_is_no_change_of_an_object_is_passed_over(value: bytes | None) -> None:
    assert decode("s3-notification", value) is None


def test_a_notification_of_two_objects_is_refused_because_a_record_is_one_content() -> None:
    [record] = json.loads(documented("s3-put"))["Records"]
    with pytest.raises(BadEvent, match="names several objects") as caught:
        decode("s3-notification", documented("s3-put", Records=[record, record]))
    assert caught.value.reason == "mapping_failed"


def test_a_new_row_is_an_upload_with_its_other_columns_as_metadata() -> None:
    event = upload("debezium", "debezium-create", b'{"schema":{},"payload":{"id":1007}}')
    assert event.content_id == "1007"
    assert event.content == TextContent("a red dress with straps")
    assert (event.title, event.owner_id, event.source) == ("Red dress", "12", "products")
    assert event.metadata == {"price": 49.5, "in_stock": True, "tags": ("summer", "sale")}
    assert event.occurred_at.timestamp() == 1763630000.123


def test_a_row_with_the_address_of_a_picture_is_a_reference() -> None:
    event = upload("debezium", "debezium-picture")
    assert event.content == ContentReference("https://img.shop.example/hat.jpg", None, None, "image")
    assert event.metadata == {"price": 9.0}


def test_a_deleted_row_is_a_delete_and_the_tombstone_behind_it_is_passed_over() -> None:
    event = decode("debezium", documented("debezium-delete"), b'{"id":1007}')
    assert isinstance(event, DeleteEvent)
    assert event.content_id == "1007"
    assert decode("debezium", None, b'{"id":1007}') is None
    assert decode("debezium", documented("debezium-delete", op="t")) is None


def test_a_row_without_a_column_for_its_content_names_the_rule_and_the_columns() -> None:
    value = documented("debezium-picture", after={"id": 1, "price": 2})
    with pytest.raises(
        BadEvent, match=r"rule 'row with a text': content\.text: each of /after/text, "
    ) as caught:
        decode("debezium", value)
    assert caught.value.reason == "mapping_failed"


def test_an_outbox_row_is_an_event_under_its_aggregate_s_id() -> None:
    event = upload("debezium-outbox", "outbox", b"shoe-1", id="4d47e190-0402-4048-bc2c-89dd54343cdc")
    assert (event.content_id, event.event_id) == ("shoe-1", "4d47e190-0402-4048-bc2c-89dd54343cdc")
    assert event.metadata == {"price": 49.5}


def test_the_payload_of_connect_s_converter_is_an_event() -> None:
    event = upload("connect-json", "connect", b'"shoe-1"')
    assert (event.content_id, event.content) == ("shoe-1", TextContent("a red shoe"))


def test_a_cloudevent_s_type_may_tell_a_removal() -> None:
    event = decode("cloudevents", documented("cloudevent-removal"), b"shoe-1")
    assert isinstance(event, DeleteEvent)
    assert (event.content_id, event.version, event.event_id) == ("shoe-1", 8, "A234-1234")
    headers = {"ce_specversion": "1.0", "ce_type": "shop.removed", "ce_id": "7", "ce_source": "/shop"}
    binary = decode("cloudevents", b"", b"shoe-1", **headers, ce_subject="shoe-1")
    assert isinstance(binary, DeleteEvent)


@pytest.mark.parametrize("preset", preset_names())
def test_an_event_of_ours_is_read_beside_any_mapping(preset: str) -> None:
    value = b'{"content_id": "shoe-1", "content": {"text": "a red shoe"}}'
    event = decode(preset, value, b"shoe-1")
    assert isinstance(event, UploadEvent)
    with pytest.raises(BadEvent, match="key_mismatch"):
        decode(preset, value, b"shoe-2")


@pytest.mark.parametrize(
    ("name", "preset"),
    [("debezium-create", "debezium"), ("s3-put", "s3-notification"), ("connect", "connect-json")],
)
def test_without_a_mapping_the_message_names_the_one_to_set(name: str, preset: str) -> None:
    with pytest.raises(BadEvent, match=f"set CLIPTIDE_MAPPING={preset}"):
        EventDecoder().decode(key=b"k", value=documented(name), timestamp_ms=NOW_MS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param("\ud800.jpg", "holds a lone surrogate", id="half a surrogate pair"),
        pytest.param("caf%C3", "its URL encoding is not UTF-8", id="a key that was cut off"),
        pytest.param("%FF.jpg", "its URL encoding is not UTF-8", id="a byte that is never UTF-8"),
    ],
)
def test_a_bucket_s_key_that_is_not_unicode_is_a_dead_letter_and_never_another_key(
    name: str, sentence: str
) -> None:
    document = json.loads((DOCUMENTED / "s3-put.json").read_text())
    document["Records"][0]["s3"]["object"]["key"] = name
    with pytest.raises(BadEvent, match=f"mapping_failed.*{sentence}"):
        decode("s3-notification", json.dumps(document).encode())


@pytest.mark.parametrize("prefix", ["", "s3:"])
@pytest.mark.parametrize("name", ["ObjectRemoved:Delete", "LifecycleExpiration:Delete"])
def test_the_removal_of_one_version_deletes_no_content(prefix: str, name: str) -> None:
    """The object may still be there: in a bucket with versions a plain removal makes a delete marker."""
    assert decode("s3-notification", removal(prefix + name, versionId="kL4kqtJlcpXroDTDmJ")) is None


@pytest.mark.parametrize(
    ("name", "version"),
    [
        pytest.param("ObjectRemoved:DeleteMarkerCreated", "kL4kqtJlcpXroDTDmJ", id="a delete marker"),
        pytest.param("LifecycleExpiration:DeleteMarkerCreated", "kL4kqtJlcpXroDTDmJ", id="expired"),
        pytest.param("s3:ObjectRemoved:Delete", "null", id="versions are suspended"),
        pytest.param("s3:ObjectRemoved:Delete", "", id="no versions, empty"),
        pytest.param("s3:ObjectRemoved:Delete", None, id="no versions, null"),
    ],
)
def test_the_removal_of_the_object_itself_deletes_its_content(name: str, version: str | None) -> None:
    event = decode("s3-notification", removal(name, versionId=version))
    assert isinstance(event, DeleteEvent)
    assert event.content_id == "shop-uploads/notes/café.txt"


def removal(name: str, **changes: Any) -> bytes:
    document = json.loads(documented("s3-delete"))
    record = document["Records"][0]
    record["eventName"] = name
    record["s3"]["object"] |= changes
    return json.dumps(document).encode()


BESIDE_ROWS = {
    "a change of the schema": {
        "source": {"connector": "mysql", "name": "shop", "db": "inventory", "ts_ms": 1763630000000},
        "ts_ms": 1763630000000,
        "databaseName": "inventory",
        "schemaName": None,
        "ddl": "ALTER TABLE products ADD COLUMN price DOUBLE",
        "tableChanges": [{"type": "ALTER", "id": '"inventory"."products"', "table": {}}],
    },
    "the begin or end of a transaction": {
        "status": "END",
        "id": "571:53195832",
        "ts_ms": 1763630000000,
        "event_count": 2,
        "data_collections": [{"data_collection": "public.products", "event_count": 2}],
    },
    "a heartbeat": {"ts_ms": 1763630000000},
}
NOTIFICATION = {
    "id": "c485ccc3-16ff-47cc-b4e8-b56a57c3bad2",
    "type": "STARTED",
    "aggregate_type": "Initial Snapshot",
    "additional_data": {"connector_name": "shop"},
    "timestamp": 1763630000000,
}


@pytest.mark.parametrize("with_schema", [False, True], ids=["plain", "with a schema"])
@pytest.mark.parametrize(
    "document", [*BESIDE_ROWS.values(), NOTIFICATION], ids=[*BESIDE_ROWS, "a notification"]
)
def test_what_debezium_publishes_beside_rows_is_passed_over(document: Any, with_schema: bool) -> None:
    value = {"schema": {"type": "struct"}, "payload": document} if with_schema else document
    assert decode("debezium", json.dumps(value).encode(), b'{"serverName":"shop"}') is None


@pytest.mark.parametrize("with_schema", [False, True], ids=["plain", "with a schema"])
@pytest.mark.parametrize("what", BESIDE_ROWS)
def test_what_debezium_publishes_beside_rows_is_named_without_a_mapping(what: str, with_schema: bool) -> None:
    document = BESIDE_ROWS[what]
    value = {"schema": {"type": "struct"}, "payload": document} if with_schema else document
    with pytest.raises(
        BadEvent, match=f"this is {what}.* Debezium, and no content: set CLIPTIDE_MAPPING=debezium"
    ):
        EventDecoder().decode(key=b"k", value=json.dumps(value).encode(), timestamp_ms=NOW_MS)


def test_a_row_with_a_column_for_its_status_is_still_a_row() -> None:
    row = {"id": 1, "status": "END", "ddl": "a text", "databaseName": "x", "description": "a red dress"}
    value = json.loads(documented("debezium-create"))
    value["payload"]["after"] = row
    event = decode("debezium", json.dumps(value).encode())
    assert isinstance(event, UploadEvent)
    assert event.content == TextContent("a red dress")
