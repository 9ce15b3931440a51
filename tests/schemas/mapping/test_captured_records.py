"""The shipped mappings on records that the platforms have published.

`captured/` holds each record's key, headers and value as they were in Kafka. `python -m tests.kafka.captures`
made the files, with the versions that `tests/kafka/versitygw.py` and `tests/kafka/capture-pom.xml` name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.hash_encoder import draw_picture
from schemas.codec import EventDecoder
from schemas.errors import BadEvent
from schemas.events import ContentReference, DeleteEvent, Event, TextContent, UploadEvent
from schemas.mapping.loading import load_mapping

CAPTURED = Path(__file__).parent / "captured"
NOW_MS = 1_795_911_606_000
TABLES = pytest.mark.parametrize("source", ["debezium-plain", "debezium-schemas"])


def as_bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def decode(preset: str | None, source: str, name: str, **options: Any) -> list[Event | None]:
    """Decode the captured records of a name, as a consumer with the preset does."""
    lines = (CAPTURED / f"{source}.jsonl").read_text("utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["name"] == name]
    decoder = EventDecoder(mapping=None if preset is None else load_mapping(preset), **options)
    return [
        decoder.decode(
            key=as_bytes(record["key"]),
            value=as_bytes(record["value"]),
            headers=[(header, as_bytes(value)) for header, value in record["headers"]],
            timestamp_ms=NOW_MS,
        )
        for record in records
    ]


def upload(preset: str, source: str, name: str) -> UploadEvent:
    [event] = decode(preset, source, name)
    assert isinstance(event, UploadEvent)
    return event


def test_a_picture_in_versitygw_is_a_reference_whose_name_is_taken_as_it_is() -> None:
    """Its notifications do not URL encode the key, as those of other stores do."""
    event = upload("s3-notification", "versitygw", "picture")
    name = "summer/red dress+1 %41 é.png"
    assert (event.content_id, event.title, event.event_id) == (f"photos/{name}", name, "")
    assert isinstance(event.content, ContentReference)
    assert event.content.uri == "s3://photos/summer/red%20dress%2B1%20%2541%20%C3%A9.png"
    assert event.content.modality == "image"


@pytest.mark.parametrize("name", ["copy", "parts"])
def test_versitygw_s_size_of_0_for_a_copy_and_for_an_upload_in_parts_is_not_believed(name: str) -> None:
    content = upload("s3-notification", "versitygw", name).content
    assert isinstance(content, ContentReference)
    assert content.size_bytes is None
    assert content.etag is not None


def test_a_text_in_versitygw_is_known_by_its_name() -> None:
    event = upload("s3-notification", "versitygw", "text")
    assert (event.content_id, event.content.modality) == ("photos/notes/café.txt", "text")


def test_objects_that_are_removed_from_versitygw_are_deletes_of_the_same_ids() -> None:
    removed = decode("s3-notification", "versitygw", "delete")
    removed += decode("s3-notification", "versitygw", "delete-many")
    assert all(isinstance(event, DeleteEvent) for event in removed)
    ids = {event.content_id for event in removed if event is not None}
    assert ids == {"photos/copy.png", "photos/parts.png", "photos/notes/café.txt"}


@pytest.mark.parametrize("name", ["test-message", "folder", "tags"])
def test_what_is_no_change_of_an_object_of_versitygw_is_passed_over(name: str) -> None:
    assert decode("s3-notification", "versitygw", name) == [None]


@pytest.mark.parametrize("name", ["picture", "copy", "parts"])
def test_a_picture_in_minio_is_a_reference_whose_name_is_url_decoded(name: str) -> None:
    event = upload("s3-notification", "minio", name)
    key = "summer/red dress+1 %41 é.png" if name == "picture" else f"{name}.png"
    assert (event.content_id, event.title, event.source) == (f"photos/{key}", key, "minio:s3")
    assert isinstance(event.content, ContentReference)
    assert (event.content.modality, event.content.size_bytes) == ("image", len(draw_picture(1)))


def test_a_text_in_minio_is_known_by_its_name_and_removed_by_the_same_id() -> None:
    event = upload("s3-notification", "minio", "text")
    assert (event.content_id, event.content.modality) == ("photos/notes/café.txt", "text")
    removed = decode("s3-notification", "minio", "delete-many")
    assert [one.content_id for one in removed if one] == ["photos/parts.png", "photos/notes/café.txt"]


@pytest.mark.parametrize("name", ["folder", "tags"])
def test_folders_and_tags_of_minio_are_passed_over_although_it_calls_them_created(name: str) -> None:
    assert decode("s3-notification", "minio", name) == [None]


@TABLES
@pytest.mark.parametrize("name", ["snapshot", "update"])
def test_a_row_of_debezium_is_an_upload_with_its_other_columns_as_metadata(source: str, name: str) -> None:
    event = upload("debezium", source, name)
    assert (event.content_id, event.content) == ("1", TextContent("a red dress with straps"))
    assert (event.title, event.owner_id, event.source) == ("Red dress", "12", "products")
    assert event.link == "https://shop.example/1"
    price = event.metadata.pop("price")
    assert price in (49.5, 39.0) or source == "debezium-schemas"  # docs/mappings.md: decimal.handling.mode
    assert event.metadata == {
        "weight": 0.25,
        "in_stock": True,
        "tags": ("summer", "sale"),
        "added": "2026-11-20T09:12:31.000000Z",
    }


@TABLES
def test_columns_that_are_null_or_empty_are_left_out(source: str) -> None:
    event = upload("debezium", source, "insert")
    assert (event.content_id, event.content) == ("2", TextContent("a blue shoe"))
    assert (event.title, event.owner_id, event.link, event.metadata) == (None, None, None, {})


@TABLES
def test_a_deleted_row_of_debezium_is_a_delete_and_its_tombstone_is_passed_over(source: str) -> None:
    [event] = decode("debezium", source, "delete")
    assert isinstance(event, DeleteEvent)
    assert event.content_id == "1"
    assert decode("debezium", source, "tombstone") == [None]


@TABLES
def test_a_truncated_table_is_passed_over_and_told_by_the_name_of_its_rule(source: str) -> None:
    told: list[str] = []
    assert decode("debezium", source, "truncate", on_passed_over=told.append) == [None]
    assert told == ["table truncated"]


@TABLES
def test_a_long_text_that_the_database_left_out_is_not_replaced_by_its_placeholder(source: str) -> None:
    assert len(upload("debezium", source, "insert-long").content.text) > 2000  # type: ignore[union-attr]
    with pytest.raises(BadEvent, match=r"content\.text: /after/description has the placeholder") as caught:
        decode("debezium", source, "update-long")
    assert caught.value.reason == "mapping_failed"


def test_a_row_of_the_outbox_is_an_event_under_the_key_that_the_router_gives_it() -> None:
    event = upload("debezium-outbox", "debezium-outbox", "created")
    assert (event.content_id, event.content) == ("shoe-1", TextContent("a red shoe"))
    assert (event.event_id, event.metadata) == ("4d47e190-0402-4048-bc2c-89dd54343cdc", {"price": 49.5})
    [removed] = decode("debezium-outbox", "debezium-outbox", "removed")
    assert isinstance(removed, DeleteEvent)
    assert removed.content_id == "shoe-1"


def test_a_line_of_connect_s_file_source_is_an_upload_once_transformations_have_made_it_an_event() -> None:
    event = upload("connect-json", "connect-file-hoisted", "line")
    assert (event.content_id, event.content) == ("line", TextContent("a red dress"))


def test_a_bare_line_of_connect_s_file_source_has_no_id_and_is_refused() -> None:
    with pytest.raises(BadEvent, match="missing_key"):
        decode("connect-json", "connect-file", "line")


@pytest.mark.parametrize(
    ("source", "name", "preset"),
    [
        ("versitygw", "picture", "s3-notification"),
        ("minio", "picture", "s3-notification"),
        ("debezium-plain", "snapshot", "debezium"),
        ("debezium-schemas", "snapshot", "debezium"),
        ("connect-file-hoisted", "line", "connect-json"),
    ],
)
def test_without_a_mapping_a_captured_record_is_refused_with_the_mapping_to_set(
    source: str, name: str, preset: str
) -> None:
    with pytest.raises(BadEvent, match=f"set CLIPTIDE_MAPPING={preset}"):
        decode(None, source, name)
