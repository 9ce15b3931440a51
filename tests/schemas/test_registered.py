"""Records that are framed with a schema of a registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro
import pytest

from fakes.sample_events import SAMPLE_EVENTS
from schemas.avro.format import current_schema
from schemas.clock_time import ms_from_time, time_from_ms
from schemas.codec import EventDecoder, encode_event_framed, encode_event_json
from schemas.errors import BadEvent, SchemaNotAtHand
from schemas.events import DeleteEvent, Event, TextContent, UploadEvent
from schemas.framing import KEY_HEADER, VALUE_HEADER, SchemaKey, prefix_of
from schemas.mapping.loading import load_mapping
from schemas.registered import RegisteredSchema

NOON_MS = 1772368215250
GUID = UUID("89791762-2336-4186-9674-299b90a802e2")
OURS = RegisteredSchema("AVRO", json.dumps(current_schema().parsed))
TEXT = {"name": "content", "type": {"type": "record", "name": "TextContent", "fields": [
    {"name": "text", "type": "string"}]}}  # fmt: skip
SMALL: dict[str, Any] = {
    "type": "record",
    "name": "UploadEvent",
    "namespace": "com.shop",
    "fields": [
        {"name": "content_id", "type": "string"},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        TEXT,
        {"name": "views", "type": {"type": "array", "items": "int"}},
    ],
}


class FakeRegistry:
    """Has the schemas at hand that it is given; those of the value None it knows to be missing."""

    def __init__(self, schemas: Mapping[SchemaKey, RegisteredSchema | None]) -> None:
        self.schemas = schemas

    def find(self, key: SchemaKey) -> RegisteredSchema | None:
        if key not in self.schemas:
            raise SchemaNotAtHand(key)
        return self.schemas[key]


def decoder(schema: RegisteredSchema | None = OURS, **others: Any) -> EventDecoder:
    keys = {8: RegisteredSchema("AVRO", '"string"'), 9: RegisteredSchema("JSON", '{"type": "string"}')}
    return EventDecoder(registry=FakeRegistry({7: schema, GUID: schema, **keys}), **others)


def datum(schema: Any, document: Any) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(json.dumps(schema))), document)
    return stream.getvalue()


def small_datum(**others: Any) -> bytes:
    return datum(SMALL, {"content_id": "shoe-1", "occurred_at": NOON_MS, "content": {"text": "red"}} | others)


def decode(
    value: bytes | None, *, key: bytes = b"shoe-1", by: EventDecoder, headers: Any = ()
) -> Event | None:
    return by.decode(key=key, value=value, headers=headers, timestamp_ms=NOON_MS)


@pytest.mark.parametrize("schema", [7, GUID], ids=["prefix", "header"])
@pytest.mark.parametrize("event", SAMPLE_EVENTS.values(), ids=SAMPLE_EVENTS)
def test_an_event_that_we_frame_is_read_as_it_was(event: Event, schema: SchemaKey) -> None:
    record = encode_event_framed(event, schema)
    assert decode(record.value, key=record.key, by=decoder(), headers=record.headers) == event


def test_a_prefix_is_a_zero_byte_and_the_id_and_a_header_a_one_and_the_guid() -> None:
    event = SAMPLE_EVENTS["text"]
    prefixed, headed = encode_event_framed(event, 7), encode_event_framed(event, GUID)
    assert prefixed.value == b"\x00\x00\x00\x00\x07" + headed.value
    assert headed.headers == (("__value_schema_id", b"\x01" + GUID.bytes),)


def test_the_header_may_hold_an_id_as_well() -> None:
    record = encode_event_framed(SAMPLE_EVENTS["text"], GUID)
    headers = ((VALUE_HEADER, prefix_of(7)),)
    assert decode(record.value, key=record.key, by=decoder(), headers=headers) == SAMPLE_EVENTS["text"]


@pytest.mark.parametrize("header", [None, b"", b"\x01abc", b"\x02" + bytes(16), b"\x00\x00\x00\x00\x07x"])
def test_a_header_that_holds_no_schema_id_is_a_bad_event(header: bytes | None) -> None:
    with pytest.raises(BadEvent, match="__value_schema_id holds no schema id"):
        decode(b"whatever", by=decoder(), headers=((VALUE_HEADER, header),))


def test_a_schema_with_other_fields_is_resolved_by_the_rules_of_avro() -> None:
    value = prefix_of(7) + small_datum(views=list(range(500)))
    event = decode(value, by=decoder(RegisteredSchema("AVRO", json.dumps(SMALL))))
    assert isinstance(event, UploadEvent)
    assert (event.content_id, event.content, event.source) == ("shoe-1", TextContent("red"), "")


def test_a_schema_that_is_ours_in_another_text_is_ours() -> None:
    """Apicurio gives back another text than the one that was registered."""
    text = json.dumps(current_schema().parsed, indent=4, sort_keys=True)
    record = encode_event_framed(SAMPLE_EVENTS["image"], 7)
    by = decoder(RegisteredSchema("AVRO", text))
    assert decode(record.value, key=record.key, by=by) == SAMPLE_EVENTS["image"]


def test_the_types_of_a_schema_may_be_schemas_of_their_own() -> None:
    whole = json.loads(json.dumps(SMALL))
    text = {**whole["fields"][2].pop("type"), "namespace": "com.shop.parts"}
    whole["fields"][2]["type"] = "com.shop.parts.TextContent"
    schema = RegisteredSchema("AVRO", json.dumps(whole), (json.dumps(text),))
    event = decode(prefix_of(7) + small_datum(views=[]), by=decoder(schema))
    assert isinstance(event, UploadEvent)
    assert event.content == TextContent("red")


def without(field: str) -> str:
    return json.dumps({**SMALL, "fields": [one for one in SMALL["fields"] if one["name"] != field]})


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (RegisteredSchema("AVRO", without("content_id")), "No default value for field content_id"),
        (RegisteredSchema("AVRO", json.dumps({**SMALL, "name": "Upload"})), "its record is com.shop.Upload"),
        (RegisteredSchema("AVRO", '"string"'), "not the schema of a record"),
        (RegisteredSchema("AVRO", "{"), "schema id 7: not an Avro schema"),
        (RegisteredSchema("AVRO", '{"type": "record", "name": "A"}'), "schema id 7: its record is A"),
        (RegisteredSchema("AVRO", '{"type": "nowhere.Type"}'), "schema id 7: not an Avro schema"),
        (RegisteredSchema("AVRO", "[" * 100_000), "schema id 7: not an Avro schema"),
        (RegisteredSchema("AVRO", "7"), "schema id 7: not an Avro schema"),
        (RegisteredSchema("PROTOBUF", "message A {}"), "schema id 7 is of the kind PROTOBUF"),
    ],
    ids=["field", "name", "no-record", "no-json", "no-fields", "no-type", "deep", "number", "protobuf"],
)
def test_a_schema_that_cannot_be_resolved_to_ours_says_why(schema: RegisteredSchema, reason: str) -> None:
    with pytest.raises(BadEvent, match=reason) as caught:
        decode(prefix_of(7) + bytes(3), by=decoder(schema))
    assert caught.value.reason == "incompatible_schema"
    assert len(caught.value.detail) < 400


def with_time(time_type: Any) -> dict[str, Any]:
    fields = [
        {"name": "occurred_at", "type": time_type} if one["name"] == "occurred_at" else one
        for one in SMALL["fields"]
    ]
    return {**SMALL, "fields": fields}


@pytest.mark.parametrize(
    ("logical_type", "written", "read"),
    [
        ({"type": "long", "logicalType": "timestamp-micros"}, NOON_MS * 1_000 + 999, NOON_MS),
        ({"type": "long", "logicalType": "timestamp-nanos"}, NOON_MS * 1_000_000, NOON_MS),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, NOON_MS * 1_000, NOON_MS),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], NOON_MS * 1_000, NOON_MS),
        ({"type": "int", "logicalType": "date"}, 20_000, 20_000 * 86_400_000),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, NOON_MS, NOON_MS),
        ({"type": "long", "logicalType": "of-my-own"}, NOON_MS, NOON_MS),
        ({"type": "long", "logicalType": 7}, NOON_MS, NOON_MS),
    ],
)
def test_a_time_is_read_in_the_unit_of_its_logical_type(logical_type: Any, written: int, read: int) -> None:
    plain = json.loads(json.dumps(with_time(logical_type)).replace("logicalType", "note"))
    schemas = RegisteredSchema("AVRO", json.dumps(with_time(logical_type)))
    value = datum(
        plain, {"content_id": "shoe-1", "occurred_at": written, "content": {"text": "red"}, "views": []}
    )
    event = decode(prefix_of(7) + value, by=decoder(schemas))
    assert isinstance(event, UploadEvent)
    assert ms_from_time(event.occurred_at) == read


def test_a_time_in_microseconds_is_read_as_such_in_our_own_schema_too() -> None:
    """Logical types are no part of a fingerprint, so this schema has that of ours."""
    ours = json.loads(OURS.text)
    [time] = [one for one in ours["fields"] if one["name"] == "occurred_at"]
    time["type"] = {"type": "long", "logicalType": "timestamp-micros"}
    event = replace(SAMPLE_EVENTS["text"], occurred_at=time_from_ms(NOON_MS // 1000))
    with pytest.raises(BadEvent, match="occurred_at: not between 1990 and 2099"):
        decode(
            encode_event_framed(event, 7).value,
            key=event.content_id.encode(),
            by=decoder(RegisteredSchema("AVRO", json.dumps(ours))),
        )


OTHER = {
    "type": "record",
    "name": "Order",
    "namespace": "com.shop",
    "fields": [{"name": "number", "type": "string"}],
}


def test_one_topic_may_hold_several_types_of_which_uploads_are_read() -> None:
    """The schema is a union, as Confluent's serializers write it for topics of several types."""
    union = RegisteredSchema("AVRO", json.dumps([OTHER, "null", SMALL]))
    document = {"content_id": "shoe-1", "occurred_at": NOON_MS, "content": {"text": "red"}, "views": []}
    event = decode(prefix_of(7) + datum([OTHER, "null", SMALL], document), by=decoder(union))
    assert isinstance(event, UploadEvent)
    assert event.content == TextContent("red")


@pytest.mark.parametrize(
    ("value", "reason", "sentence"),
    [
        pytest.param(b"\x00\x02x", "incompatible_schema", "its record is com.shop.Order", id="another type"),
        pytest.param(b"\x02", "incompatible_schema", "not the schema of a record", id="null"),
        pytest.param(b"\x08", "undecodable", "names no type of the union", id="no branch"),
        pytest.param(b"", "undecodable", "names no type of the union", id="nothing"),
        pytest.param(b"\x01", "undecodable", "names no type of the union", id="a negative branch"),
    ],
)
def test_what_is_no_upload_in_a_topic_of_several_types_says_what_it_is(
    value: bytes, reason: str, sentence: str
) -> None:
    union = RegisteredSchema("AVRO", json.dumps([OTHER, "null", SMALL]))
    with pytest.raises(BadEvent, match=sentence) as caught:
        decode(prefix_of(7) + value, by=decoder(union))
    assert caught.value.reason == reason


def test_decimals_are_refused_because_their_bytes_would_be_read_as_a_text() -> None:
    decimals = {
        "type": "map",
        "values": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    }
    schema = {**SMALL, "fields": [*SMALL["fields"], {"name": "metadata", "type": decimals}]}
    with pytest.raises(BadEvent, match="metadata holds decimals, which Avro writes as bytes") as caught:
        decode(prefix_of(7) + small_datum(views=[]), by=decoder(RegisteredSchema("AVRO", json.dumps(schema))))
    assert caught.value.reason == "incompatible_schema"


def test_a_schema_that_is_none_names_its_id_once() -> None:
    with pytest.raises(BadEvent) as caught:
        decode(prefix_of(7) + bytes(3), by=decoder(RegisteredSchema("AVRO", "{")))
    assert caught.value.detail.count("schema id 7") == 1


@pytest.mark.parametrize(
    "schema",
    [r'"\ud800"', r'{"type": "record", "name": "a", "fields": [{"name": "b", "type": "\udfff"}]}'],
    ids=["a type", "the type of a field"],
)
def test_what_is_said_of_a_schema_that_names_half_a_character_can_be_written(schema: str) -> None:
    with pytest.raises(BadEvent, match=r"\\ud[8f]") as caught:
        decode(prefix_of(7) + bytes(3), by=decoder(RegisteredSchema("AVRO", schema)))
    assert caught.value.reason == "incompatible_schema"
    assert caught.value.detail.encode().decode() == caught.value.detail


def test_data_of_a_schema_that_names_itself_may_be_deeper_than_python_goes() -> None:
    nested = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    schema = {**SMALL, "fields": [*SMALL["fields"][:3], {"name": "node", "type": nested}]}
    value = small_datum(views=[])[:-1] + b"\x02" * 1_000_000 + b"\x00"
    with pytest.raises(BadEvent, match="RecursionError"):
        decode(prefix_of(7) + value, by=decoder(RegisteredSchema("AVRO", json.dumps(schema))))


def test_an_id_that_the_registry_does_not_have_is_a_bad_event() -> None:
    with pytest.raises(BadEvent, match="the registry has no schema id 7") as caught:
        decode(prefix_of(7) + b"x", by=decoder(None))
    assert caught.value.reason == "unknown_schema"


def test_a_schema_that_is_not_fetched_yet_is_asked_for() -> None:
    with pytest.raises(SchemaNotAtHand) as caught:
        decode(prefix_of(70) + b"x", by=decoder())
    assert caught.value.key == 70


def test_json_behind_a_framing_is_read_as_plain_json() -> None:
    record = encode_event_json(SAMPLE_EVENTS["text"])
    by = decoder(RegisteredSchema("JSON", "{}"))
    assert decode(prefix_of(7) + record.value, key=record.key, by=by) == SAMPLE_EVENTS["text"]
    headers = ((VALUE_HEADER, prefix_of(GUID)),)
    assert decode(record.value, key=record.key, by=by, headers=headers) == SAMPLE_EVENTS["text"]


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (prefix_of(8) + b"\x0cshoe-1", ()),
        (prefix_of(9) + b'"shoe-1"', ()),
        (b"\x0cshoe-1", ((KEY_HEADER, prefix_of(8)),)),
    ],
    ids=["avro", "json", "header"],
)
def test_a_key_that_a_serializer_framed_is_the_content_id_in_it(key: bytes, headers: Any) -> None:
    event = encode_event_framed(SAMPLE_EVENTS["text"], 7)
    content_id = SAMPLE_EVENTS["text"].content_id
    key = key.replace(b"\x0cshoe-1", bytes([len(content_id) * 2]) + content_id.encode())
    key = key.replace(b"shoe-1", content_id.encode())
    assert decode(event.value, key=key, by=decoder(), headers=headers) == SAMPLE_EVENTS["text"]
    deleted = decode(None, key=key, by=decoder(), headers=headers)
    assert isinstance(deleted, DeleteEvent)
    assert deleted.content_id == content_id


def test_a_mapping_reads_avro_and_json_that_a_registry_frames() -> None:
    """Debezium writes rows through a registry where it is told to."""
    row = {"type": "record", "name": "Envelope", "fields": [
        {"name": "op", "type": "string"},
        {"name": "before", "type": "null"},
        {"name": "after", "type": {"type": "record", "name": "Row", "fields": [
            {"name": "content_id", "type": "string"}, {"name": "text", "type": "string"}]}},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "connector", "type": "string"}, {"name": "db", "type": "string"},
            {"name": "table", "type": "string"}, {"name": "ts_ms", "type": "long"}]}},
        {"name": "ts_ms", "type": "long"}]}  # fmt: skip
    document = {"op": "c", "before": None, "after": {"content_id": "shoe-1", "text": "red"},
                "ts_ms": NOON_MS,
                "source": {"connector": "pg", "db": "", "table": "t", "ts_ms": 1}}  # fmt: skip
    mapping = load_mapping("debezium")
    plain = EventDecoder(mapping=mapping)
    expected = decode(json.dumps(document).encode(), by=plain)
    avro = decoder(RegisteredSchema("AVRO", json.dumps(row)), mapping=mapping)
    assert decode(prefix_of(7) + datum(row, document), by=avro) == expected
    as_json = decoder(RegisteredSchema("JSON", "{}"), mapping=mapping)
    assert decode(prefix_of(7) + json.dumps(document).encode(), by=as_json) == expected
