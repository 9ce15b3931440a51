"""Mappings of one's own: what they can say, and how a mistake in one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.sample_events import build_upload
from schemas.codec import EventDecoder, encode_event
from schemas.errors import BadEvent
from schemas.events import Event, ImageContent, TextContent, UploadEvent
from schemas.mapping.loading import MAX_FILE_BYTES, BadMapping, load_mapping, parse_mapping, preset_names
from schemas.mapping.rules import EventMapping
from schemas.mapping.values import ABSENT, resolve
from tests.hostile.limits import assert_bounded

NOW_MS = 1_763_630_000_000
TAKE = "content_id: /id, content: {text: /text}"


def rules(take: str, when: str = "[]", rest: str = "") -> EventMapping:
    return EventMapping(parse_mapping(f"rules: [{{name: r, when: {when}, take: {{{take}}}{rest}}}]", "test"))


def mapped(mapping: EventMapping, document: Any, **headers: str) -> Event | None:
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    given = [(name, text.encode()) for name, text in headers.items()]
    decoder = EventDecoder(mapping=mapping)
    return decoder.decode(key=b"the key", value=value, headers=given, timestamp_ms=NOW_MS)


def upload(mapping: EventMapping, document: Any, **headers: str) -> UploadEvent:
    event = mapped(mapping, document, **headers)
    assert isinstance(event, UploadEvent)
    return event


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [", r"f:1:9: "),
        ("", r"f:1:1: the file: "),
        ("rules: []", r"f:1:8: rules: "),
        ("rules:\n- name: a\n", r"f:2:3: rules\.0: needs exactly one of take, ignore: true and refuse"),
        ("rules:\n- name: a\n  ignore: true\n  tkae: {}\n", r"f:4:9: rules\.0\.tkae: there is no such name"),
        ("rules:\n- name: a\n  name: b\n", r"f:3:3: the key name stands twice"),
        ("rules:\n- {name: a, take: {title: /t}}", r"f:2:3: rules\.0: takes no content_id"),
        (
            "rules:\n- name: a\n  take:\n    content_id:\n      pointer: id\n",
            r"f:5:16: rules\.0\.take\.content_id\.pointer: is not a JSON pointer",
        ),
        (
            "rules:\n- name: a\n  take:\n    content_id: {template: '{b}/{k}', with: {b: /b}}\n",
            r"f:4:17: rules\.0\.take\.content_id: names something in braces that `with` does not have",
        ),
        (
            "rules:\n- name: a\n  take:\n    content_id: {template: '{b.__class__}', with: {b: /b}}\n",
            r"f:4:17: .* names something in braces",
        ),
        ("rules:\n- {name: a, take: {content_id: {pointer: /a, header: b}}}", "needs exactly one of pointer"),
        ("rules:\n- {name: a, when: [{pointer: /a}], ignore: true}", "needs exactly one of equals"),
        ("rules:\n- {name: a, when: [{equals: 1}], ignore: true}", "exactly one of pointer and header"),
        ("rules:\n- {name: a, ignore: true}\n- {name: a, ignore: true}", "two rules have the same name"),
        (
            "rules:\n- {name: a, take: {content_id: /a, content: {text: /a, image: /b}}}",
            "needs exactly one of text, image, reference, whole_value",
        ),
    ],
)
def test_a_mistake_is_named_with_line_and_column(text: str, message: str) -> None:
    with pytest.raises(BadMapping, match=message):
        parse_mapping(text, "f")


def test_a_file_that_is_not_there_names_the_presets(tmp_path: Path) -> None:
    with pytest.raises(BadMapping, match=r"No such file or directory.*debezium, debezium-outbox"):
        load_mapping(str(tmp_path / "none.yaml"))


def test_a_file_that_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BadMapping, match="more than"):
        load_mapping(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadMapping, match="not UTF-8"):
        load_mapping(str(path))


def test_values_are_pointers_constants_headers_templates_and_the_key() -> None:
    mapping = rules(
        "content_id: {key: true}, content: {text: /text}, source: shop, owner_id: {header: user},"
        " link: {template: 'https://s.example/{a}/{b}', with: {a: /a, b: {pointer: /b, encode: url}}},"
        " title: {first_of: [/title, /name], optional: true}, metadata: {kind: toy, size: /size}"
    )
    event = upload(
        mapping, {"text": "a ball", "a": 7, "b": "red ball", "name": "Ball", "size": 3}, user="ann"
    )
    assert (event.content_id, event.source, event.owner_id) == ("the key", "shop", "ann")
    assert (event.link, event.title) == ("https://s.example/7/red%20ball", "Ball")
    assert event.metadata == {"kind": "toy", "size": 3.0}


@pytest.mark.parametrize(
    ("unit", "given"),
    [
        ("s", 1763630000.123),
        ("s", "1763630000.123"),
        ("ms", 1763630000123),
        ("us", 1763630000123456),
        ("ns", 1763630000123456789),
    ],
)
def test_a_time_may_have_any_unit(unit: str, given: object) -> None:
    event = upload(
        rules(TAKE + f", occurred_at: {{pointer: /at, unit: {unit}}}"), {"id": "i", "text": "t", "at": given}
    )
    assert event.occurred_at.timestamp() == 1763630000.123


def test_a_table_names_the_operation_and_what_is_not_in_it_fails() -> None:
    mapping = rules(TAKE + ", operation: {pointer: /op, table: {new: upsert, gone: delete}}")
    assert upload(mapping, {"id": "i", "text": "t", "op": "new"}).content_id == "i"
    deleted = mapped(mapping, {"id": "i", "op": "gone"})
    assert type(deleted).__name__ == "DeleteEvent"
    with pytest.raises(BadEvent, match="operation: the table has no entry for what /op is"):
        mapped(mapping, {"id": "i", "op": "other"})


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_whole_value_may_be_the_content(kind: str) -> None:
    mapping = rules(f"content_id: {{header: id}}, content: {{whole_value: {kind}}}")
    content = upload(mapping, b"\x89PNG bytes" if kind == "image" else b"words", id="i").content
    assert content == (ImageContent(b"\x89PNG bytes") if kind == "image" else TextContent("words"))


def test_a_text_that_is_not_unicode_fails_by_name() -> None:
    with pytest.raises(BadEvent, match=r"content\.whole_value: the value is not UTF-8"):
        mapped(rules("content_id: {header: id}, content: {whole_value: text}"), b"\xff", id="i")


@pytest.mark.parametrize(
    ("take", "document", "message"),
    [
        (TAKE, {"text": "t"}, "rule 'r': content_id: /id is not there"),
        (TAKE, {"id": None, "text": "t"}, "rule 'r': content_id: /id is not there"),
        (TAKE + ", owner_id: {header: user}", {"id": "i", "text": "t"}, "owner_id: header user is not there"),
        ("event: /payload", {"payload": [1]}, "event: /payload is not an object"),
        (TAKE + ", metadata_from: {pointer: /m}", {"id": "i", "text": "t"}, "/m is not an object"),
        (TAKE + ", occurred_at: {pointer: /id, unit: ms}", {"id": "x", "text": "t"}, "not a number, but has"),
    ],
)
def test_a_value_that_is_not_there_fails_with_rule_and_pointer(
    take: str, document: object, message: str
) -> None:
    with pytest.raises(BadEvent, match=message) as caught:
        mapped(rules(take), document)
    assert caught.value.reason == "mapping_failed"


@pytest.mark.parametrize(
    ("when", "document", "applies"),
    [
        ("[{pointer: /op, equals: c}]", {"op": "c"}, True),
        ("[{pointer: /op, equals: true}]", {"op": 1}, False),
        ("[{pointer: /op, equals: 1}]", {"op": 1.0}, True),
        ("[{pointer: /op, any_of: [c, r]}]", {"op": "r"}, True),
        ("[{pointer: /op, starts_with: a}]", {"op": "abc"}, True),
        ("[{pointer: /op, ends_with: [x, bc]}]", {"op": "abc"}, True),
        ("[{pointer: /op, ends_with: bc}]", {"op": 7}, False),
        ("[{pointer: /op, exists: false}]", {"op": None}, True),
        ("[{pointer: /op, exists: false}]", {"op": 0}, False),
        ("[{header: kind, equals: toy}]", {}, True),
        ("[{header: other, equals: toy}]", {}, False),
        ("[{pointer: /op, equals: c}, {header: kind, equals: toy}]", {"op": "d"}, False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(when: str, document: dict[str, Any], applies: bool) -> None:
    mapping = rules(TAKE, when=when)
    record = json.dumps({"id": "i", "text": "t", **document}).encode()
    found = mapping.read(key=None, value=record, headers=[("kind", b"toy")], timestamp_ms=NOW_MS)
    assert (found is not None) == applies


def test_the_first_rule_that_applies_decides_and_each_other_one_says_why_not() -> None:
    text = (
        "rules:\n- {name: gone, when: [{pointer: /op, equals: d}], ignore: true}\n"
        "- {name: inner, at: /payload, ignore: true}\n"
    )
    mapping = EventMapping(parse_mapping(text, "f"))
    explained = mapping.explain(key=None, value=b'{"op": "c"}', headers=())
    assert explained == [("gone", '/op is "c"'), ("inner", "there is no /payload")]


EVERYTHING_ELSE = EventMapping(parse_mapping("rules: [{name: rest, ignore: true}]", "f"))


def test_a_rule_that_ignores_everything_hides_no_broken_record_and_no_event_in_avro() -> None:
    assert mapped(EVERYTHING_ELSE, {"any": "document"}) is None
    with pytest.raises(BadEvent, match="undecodable"):
        mapped(EVERYTHING_ELSE, b"{broken")
    event = encode_event(build_upload(content_id="the key"))
    assert mapped(EVERYTHING_ELSE, event.value) == build_upload(content_id="the key")
    explained = EVERYTHING_ELSE.explain(key=None, value=b"{broken", headers=())
    assert explained == [("rest", "the value is not JSON")]


def test_a_header_can_say_that_a_value_which_is_not_json_is_passed_over() -> None:
    text = "rules: [{name: r, when: [{header: kind, equals: log}], ignore: true}]"
    assert mapped(EventMapping(parse_mapping(text, "f")), b"\x00\x01", kind="log") is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["op", "id", "after", "before", "payload", "Records", "s3", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a": [1, None], "": "e", "0": "z", "a/b": 2}),
        ("/a/0", 1),
        ("/a/1", None),
        ("/", "e"),
        ("/0", "z"),
        ("/a~1b", 2),
        *((pointer, ABSENT) for pointer in ("/b", "/a/2", "/a/-", "/a/00", "/a/-1", "/a/1/x", "//0", "/a/x")),
    ],
)
def test_a_pointer_finds_what_is_there_and_nothing_else(pointer: str, found: object) -> None:
    document = {"a": [1, None], "": "e", "0": "z", "a/b": 2}
    assert resolve(document, pointer) == found
    assert resolve(ABSENT, "/a") is ABSENT


@pytest.mark.parametrize("preset", preset_names())
def test_json_as_deep_as_python_goes_breaks_no_preset(preset: str) -> None:
    decoder = EventDecoder(mapping=load_mapping(preset))
    for depth in range(800, 1000, 3):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        row = b'{"payload":%b,"after":{"id":"a","text":%b},"op":"c","source":{}}' % (deep, deep)
        with pytest.raises(BadEvent):
            decoder.decode(key=b"k", value=row, timestamp_ms=NOW_MS)


def test_a_value_that_is_not_there_costs_the_same_in_a_large_record() -> None:
    row = {"after": {"id": "a", "other": "x" * 2**22}, "op": "c", "source": {}}
    value, decoder = json.dumps(row).encode(), EventDecoder(mapping=load_mapping("debezium"))

    def decode() -> None:
        with pytest.raises(BadEvent) as caught:
            decoder.decode(key=b"k", value=value, timestamp_ms=NOW_MS)
        assert len(caught.value.detail) < 1000

    assert_bounded(decode, len(value) // 2)


@given(preset=st.sampled_from(preset_names()), document=_json)
def test_no_json_breaks_a_preset(preset: str, document: Any) -> None:
    decoder = EventDecoder(mapping=load_mapping(preset))
    for value in (
        json.dumps(document).encode(),
        b'{"specversion":"1.0","data":' + json.dumps(document).encode(),
    ):
        try:
            decoder.decode(key=b"k", value=value, headers=[("id", b"\xff")], timestamp_ms=NOW_MS)
        except BadEvent:
            continue


@given(value=st.binary(max_size=64), key=st.none() | st.binary(max_size=8))
def test_no_bytes_break_a_preset(value: bytes, key: bytes | None) -> None:
    for preset in preset_names():
        try:
            EventDecoder(mapping=load_mapping(preset)).decode(key=key, value=value, timestamp_ms=NOW_MS)
        except BadEvent:
            continue
        except Exception as error:  # noqa: BLE001 - an unknown fingerprint is the one other outcome
            assert type(error).__name__ == "UnknownSchema"  # noqa: PT017


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"id": "1", "text": "gone"}, "content.text: /text"),
        ({"id": "gone", "text": "x"}, "content_id: /id"),
        ({"id": "1", "text": "x", "row": {"colour": "gone"}}, "metadata.colour: /row/colour"),
        ({"id": "1", "text": "x", "row": {"tags": ["red", "gone"]}}, "metadata.tags: /row/tags"),
        ({"id": "1", "text": "x", "title": "gone", "name": "another"}, "title: /title"),
    ],
)
def test_the_placeholder_of_a_value_that_was_left_out_is_never_taken(
    document: dict[str, Any], where: str
) -> None:
    take = "title: {first_of: [/title, /name], optional: true}, metadata_from: {pointer: /row}"
    text = f"{{placeholder: gone, rules: [{{name: r, take: {{{TAKE}, {take}}}}}]}}"
    mapping = EventMapping(parse_mapping(text, "test"))
    with pytest.raises(BadEvent, match=f"{where} has the placeholder"):
        mapped(mapping, {"row": {}, **document})
    assert upload(mapping, {"id": "1", "text": "gone too", "row": {}}).content == TextContent("gone too")


@pytest.mark.parametrize("field", ["title", "link", "owner_id", "event_id", "source"])
def test_an_optional_value_that_is_empty_is_left_out(field: str) -> None:
    event = upload(
        rules(f"{TAKE}, {field}: {{pointer: /f, optional: true}}"), {"id": "1", "text": "x", "f": ""}
    )
    assert not getattr(event, field)
