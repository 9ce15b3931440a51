"""What was ever published stays readable: the schema's rules, its history, its golden records."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
from fastavro.schema import to_parsing_canonical_form

from fakes.sample_events import SAMPLE_EVENTS, build_upload, describe_event
from schemas.avro.format import (
    FINGERPRINT_ALIASES,
    AvroSchema,
    current_schema,
    parse_avro_schema,
    released_schemas,
)
from schemas.codec import EventDecoder, encode_event
from schemas.errors import UnknownSchema
from schemas.events import UploadEvent
from tools.release_schema import GOLDEN, HISTORY, SCHEMA

CURRENT: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
HISTORIC = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(HISTORY.glob("*.avsc"))}
GOLDEN_NAMES = sorted(path.stem for path in GOLDEN.glob("*.bin"))
REMEDY = "run python -m tools.release_schema"


def named_types(schema: Any) -> Iterator[dict[str, Any]]:
    """Every record, enum and fixed of a schema, itself included, outermost first."""
    if isinstance(schema, list):
        for branch in schema:
            yield from named_types(branch)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "enum", "fixed"):
            yield schema
        for part in [*schema.get("fields", []), schema.get("type"), schema.get("values")]:
            yield from named_types(part)


def shape(schema: Any) -> Any:
    """The part of a field's type that must not change for readers: named types by name, no attributes."""
    if isinstance(schema, list):
        return [shape(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if "name" in schema:
        return schema["name"], schema.get("size")
    return schema["type"], schema.get("logicalType"), shape(schema.get("values"))


def forbidden_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What the evolution rules forbid among the changes from `old` to `new`."""
    found = []
    new_types = {t["name"]: t for t in named_types(new)}
    for old_type in named_types(old):
        name = old_type["name"]
        if name not in new_types:
            found.append(f"{name} is gone")
        elif old_type["type"] == "record":
            found += _forbidden_field_changes(old_type, new_types[name])
        elif old_type["type"] == "enum":
            kept = new_types[name]["symbols"][: len(old_type["symbols"])]
            found += [] if kept == old_type["symbols"] else [f"{name}: symbols changed"]
    return found


def _forbidden_field_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    name = old["name"]
    old_fields = {f["name"]: f for f in old["fields"]}
    new_fields = {f["name"]: f for f in new["fields"]}
    gone = [f"{name}.{f} is gone" for f in old_fields if f not in new_fields]
    bare = [
        f"{name}.{f} is new, without default"
        for f in new_fields
        if f not in old_fields and "default" not in new_fields[f]
    ]
    changed = [
        f"{name}.{f} changed its type"
        for f in old_fields
        if f in new_fields and not _is_widened(shape(old_fields[f]["type"]), shape(new_fields[f]["type"]))
    ]
    defaults = [
        f"{name}.{f} changed its default"
        for f in old_fields
        if "default" in old_fields[f]
        and new_fields.get(f, {}).get("default", "none") != old_fields[f]["default"]
    ]
    return gone + bare + changed + defaults


def _is_widened(old: Any, new: Any) -> bool:
    """Whether readers of the new type can read the old one: a union, also of a map's values, may grow."""
    if isinstance(old, list) and isinstance(new, list):
        return new[: len(old)] == old
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new) == 3:
        return old[:2] == new[:2] and _is_widened(old[2], new[2])
    return bool(old == new)


def changed_schema(**field: Any) -> dict[str, Any]:
    """The current schema with one more field."""
    schema = copy.deepcopy(CURRENT)
    schema["fields"].append(field)
    return schema


def schema_without(*names: str) -> dict[str, Any]:
    schema = copy.deepcopy(CURRENT)
    schema["fields"] = [field for field in schema["fields"] if field["name"] not in names]
    return schema


def changed_default(name: str, default: object) -> dict[str, Any]:
    schema = copy.deepcopy(CURRENT)
    next(field for field in schema["fields"] if field["name"] == name)["default"] = default
    return schema


def avro_schema(schema: dict[str, Any]) -> AvroSchema:
    return parse_avro_schema(json.dumps(schema))


def test_every_field_and_type_is_documented() -> None:
    types = list(named_types(CURRENT))
    undocumented = [t["name"] for t in types if not t.get("doc") and t["type"] != "fixed"]
    for record in types:
        undocumented += [f["name"] for f in record.get("fields", []) if not f.get("doc")]
    assert undocumented == []


def test_only_optional_fields_carry_defaults_and_these_are_required() -> None:
    assert [f["name"] for f in CURRENT["fields"] if "default" not in f] == ["content_id", "occurred_at"]


def test_the_current_schema_is_in_its_history() -> None:
    assert current_schema().fingerprint.hex() in HISTORIC, REMEDY


def test_every_historic_schema_lies_under_its_fingerprint() -> None:
    fingerprints = {name: avro_schema(schema).fingerprint.hex() for name, schema in HISTORIC.items()}
    assert fingerprints == {name: name for name in HISTORIC}
    assert {s.fingerprint.hex() for s in released_schemas()} == set(HISTORIC)


@pytest.mark.parametrize("old", HISTORIC.values(), ids=HISTORIC.keys())
def test_nothing_forbidden_happened_since_a_historic_schema(old: dict[str, Any]) -> None:
    assert forbidden_changes(old, CURRENT) == []


@pytest.mark.parametrize("release", HISTORIC)
@pytest.mark.parametrize("wire_format", ["avro", "json"])
def test_every_release_has_golden_records_in_each_wire_format(release: str, wire_format: str) -> None:
    prefix = f"{release}-{wire_format}-"
    kinds = {name.removeprefix(prefix) for name in GOLDEN_NAMES if name.startswith(prefix)}
    assert kinds >= {"text", "image", "reference", "delete"}, REMEDY


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_a_golden_record_is_read_as_the_event_that_it_was(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    event = EventDecoder().decode(
        key=bytes.fromhex(golden["key_hex"]),
        value=(GOLDEN / f"{name}.bin").read_bytes(),
        headers=[(header, value.encode()) for header, value in golden["headers"].items()],
        timestamp_ms=golden["timestamp_ms"],
    )
    described = describe_event(event)
    assert {field: described[field] for field in golden["event"]} == golden["event"]


@pytest.mark.parametrize(
    ("new", "forbidden"),
    [
        (changed_schema(name="language", type="string"), "UploadEvent.language is new, without default"),
        (schema_without("link"), "UploadEvent.link is gone"),
        (changed_default("source", "shop"), "UploadEvent.source changed its default"),
        (schema_without("content"), "ContentReference is gone"),
    ],
    ids=["new field without default", "field gone", "default changed", "type gone"],
)
def test_the_rules_forbid(new: dict[str, Any], forbidden: str) -> None:
    assert forbidden in forbidden_changes(CURRENT, new)


def test_the_rules_forbid_other_types_and_other_symbols() -> None:
    new = copy.deepcopy(CURRENT)
    by_name = {field["name"]: field for field in new["fields"]}
    by_name["version"]["type"] = ["null", "string"]
    by_name["operation"]["type"]["symbols"] = ["delete", "upsert"]
    assert forbidden_changes(CURRENT, new) == [
        "UploadEvent.version changed its type",
        "Operation: symbols changed",
    ]


def test_the_rules_allow_a_field_with_a_default_and_a_further_branch() -> None:
    new = changed_schema(name="language", type=["null", "string"], default=None)
    values = next(f for f in new["fields"] if f["name"] == "metadata")["type"]["values"]
    values.insert(0, "null")
    assert forbidden_changes(CURRENT, new) == ["UploadEvent.metadata changed its type"]
    values.append(values.pop(0))
    assert forbidden_changes(CURRENT, new) == []
    next(f for f in new["fields"] if f["name"] == "version")["type"].append("string")
    assert forbidden_changes(CURRENT, new) == []


@pytest.mark.parametrize("event", SAMPLE_EVENTS.values(), ids=SAMPLE_EVENTS.keys())
def test_today_s_events_are_readable_after_a_field_was_added(event: Any) -> None:
    tomorrow = avro_schema(changed_schema(name="language", type=["null", "string"], default=None))
    decoder = EventDecoder(released=[current_schema(), tomorrow], current=tomorrow)
    encoded = encode_event(event)
    assert decoder.decode(key=encoded.key, value=encoded.value, timestamp_ms=0) == event


def test_events_of_an_older_schema_get_the_defaults_of_newer_fields() -> None:
    older = avro_schema(schema_without("link", "metadata", "source"))
    decoder = EventDecoder(released=[older, current_schema()])
    event = build_upload(source="", link=None, metadata={})
    value = encode_event(event).value
    # The event ends with source "" · no owner · no link · no metadata · no title, a zero byte each.
    assert value.endswith(b"\x00" * 5)
    older_value = value[:2] + older.fingerprint + value[10:-5] + b"\x00" * 2
    decoded = decoder.decode(key=b"shoe-1", value=older_value, timestamp_ms=0)
    assert isinstance(decoded, UploadEvent)
    assert decoded == event


def test_events_of_a_newer_schema_are_an_unknown_schema_that_is_named() -> None:
    newer = avro_schema(changed_schema(name="language", type="string", default=""))
    value = encode_event(build_upload()).value
    with pytest.raises(UnknownSchema, match="upgrade consumers before producers") as caught:
        EventDecoder().decode(key=b"shoe-1", value=value[:2] + newer.fingerprint + value[10:], timestamp_ms=0)
    assert caught.value.schema == f"fingerprint {newer.fingerprint.hex()}"


def test_the_schema_has_no_logical_type_because_libraries_disagree_on_their_fingerprints() -> None:
    assert "logicalType" not in SCHEMA.read_text()


AS_OTHERS_WRITE_IT = {
    "hamba/avro for Go": '{"type":"long","logicalType":"timestamp-millis"}',
    "apache-avro for Rust": '{"type":"long"}',
}


@pytest.mark.parametrize("written", AS_OTHERS_WRITE_IT.values(), ids=AS_OTHERS_WRITE_IT.keys())
def test_the_fingerprints_of_other_libraries_are_aliases_of_ours(written: str) -> None:
    """Both keep traces of the logical type that `occurred_at` once had."""
    schema = HISTORIC["123f76d973687910"]
    canonical = to_parsing_canonical_form(fastavro.parse_schema(copy.deepcopy(schema)))
    other = canonical.replace('"occurred_at","type":"long"', f'"occurred_at","type":{written}')
    assert other != canonical
    given = crc_64_avro(other.encode()).to_bytes(8, "little")
    assert FINGERPRINT_ALIASES[given] == avro_schema(schema).fingerprint


def test_an_alias_stands_for_a_released_schema() -> None:
    assert {alias.hex() for alias in FINGERPRINT_ALIASES.values()} <= set(HISTORIC)
    assert not {alias.hex() for alias in FINGERPRINT_ALIASES} & set(HISTORIC)


def crc_64_avro(data: bytes) -> int:
    """The fingerprint as Avro's specification defines it, bit by bit."""
    empty = 0xC15D213AA4D7A795
    fingerprint = empty
    for byte in data:
        fingerprint ^= byte
        for _ in range(8):
            fingerprint = (fingerprint >> 1) ^ (empty if fingerprint & 1 else 0)
    return fingerprint


def test_the_fingerprint_is_crc_64_avro_in_little_endian() -> None:
    assert crc_64_avro(b'"int"') == 0x7275D51A3F395C8F  # from the specification's own test data
    assert parse_avro_schema('"int"').fingerprint == crc_64_avro(b'"int"').to_bytes(8, "little")


def test_logical_types_docs_and_defaults_do_not_change_the_fingerprint() -> None:
    plain = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}'
    rich = (
        '{"type": "record", "name": "R", "doc": "d", "fields": [{"name": "a", "default": 1, '
        '"type": {"type": "long", "logicalType": "timestamp-millis"}}]}'
    )
    canonical = b'{"name":"R","type":"record","fields":[{"name":"a","type":"long"}]}'
    assert parse_avro_schema(plain).fingerprint == crc_64_avro(canonical).to_bytes(8, "little")
    assert parse_avro_schema(rich).fingerprint == parse_avro_schema(plain).fingerprint


@pytest.mark.parametrize("text", ["nonsense", '{"type": "record"}', '"unheard-of"'])
def test_a_text_that_is_no_schema_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_avro_schema(text)
