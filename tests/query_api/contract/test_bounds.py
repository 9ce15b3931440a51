"""Everything that a request may hold has a largest size, so that no body costs more than a good one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from query_api.contract.json_size import (
    MAX_CONTAINERS,
    count_byte,
    has_few_containers,
    is_small_beside_pictures,
)
from query_api.route_table import ROUTES

PICTURES = {"image", "image_file"}  # bounded by the size of the body
LIMITED = {"str": ("max_length",), "list": ("max_length", "fail_fast"), "dict": ("max_length", "fail_fast")}


def models() -> list[type[BaseModel]]:
    described = [part for route in ROUTES for part in (*route.bodies.values(), route.parameters)]
    return sorted({part for part in described if isinstance(part, type)}, key=lambda model: model.__name__)


def values_in(node: Any, field: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every text, list and map that a core schema holds, with the field that it is in."""
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from values_in(part, field)
    if not isinstance(node, dict):
        return
    if node.get("type") in (*LIMITED, "bytes"):
        yield field, node
    for name, part in node.items():
        if name == "fields":
            for inner, schema in part.items():
                yield from values_in(schema, f"{field}.{inner}".removeprefix("."))
        elif name not in ("metadata", "serialization"):
            yield from values_in(part, field)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_each_text_list_and_map_of_a_request_has_a_largest_length_and_stops_at_its_first_error(
    model: type[BaseModel],
) -> None:
    for field, node in values_in(model.__pydantic_core_schema__):
        if field.rpartition(".")[2] not in PICTURES:
            assert node["type"] != "bytes", f"{field} is no picture"
            for limit in LIMITED[node["type"]]:
                assert node.get(limit), f"{model.__name__}.{field} has no {limit}"


def test_the_walk_over_a_model_finds_what_it_looks_for() -> None:
    class Unbounded(BaseModel):
        names: list[str] | None = None
        counts: dict[str, int] = {}

    found = [(field, node["type"]) for field, node in values_in(Unbounded.__pydantic_core_schema__)]
    assert found == [("names", "list"), ("names", "str"), ("counts", "dict"), ("counts", "str")]


PICTURE = b"QUJD" * 1000
SIZES = {
    "nothing": (b"", True),
    "small": (b'{"text": "a"}', True),
    "numbers": (b'{"vector": [' + b"0.5," * 1000 + b"1]}", False),
    "empty texts": (b'{"vector": [' + b'"",' * 1000 + b"1]}", False),
    "a picture": (b'{"image": "' + PICTURE + b'"}', True),
    "a picture as a data URL": (b'{"image": "data:image/png;base64,' + PICTURE + b'"}', True),
    "a picture with escaped slashes": (b'{"image": "' + rb"\/9j\/\u002B" * 500 + b'"}', True),
    "a picture in lines": (b'{"image": "' + rb"QUJDQUJDQUJDQUJDQUJDQUJDQUJD\r\n" * 200 + b'"}', True),
    "many pictures": (b'{"contents": [' + (b'{"image": "' + PICTURE + b'"},') * 5 + b"]}", True),
    "much after a picture": (b'{"image": "' + PICTURE + b'", "vector": [' + b"0.5," * 1000 + b"1]}", False),
    "much before a picture": (b'{"vector": [' + b"0.5," * 1000 + b'1], "image": "' + PICTURE + b'"}', False),
    "a picture without an end": (b'{"image": "' + PICTURE, True),
    "blanks": (b" " * 4000, False),
}


@pytest.mark.parametrize(("body", "is_small"), SIZES.values(), ids=SIZES)
def test_only_what_is_not_a_picture_counts_towards_the_size_of_json(body: bytes, is_small: bool) -> None:
    assert is_small_beside_pictures(body, 1000) is is_small


CONTAINERS = {
    "few": (b'{"queries": [{}]}', True),
    "many lists": (b"[" + b"[]," * MAX_CONTAINERS + b"1]", False),
    "many objects": (b"[" + b"{}," * MAX_CONTAINERS + b"1]", False),
    "brackets in a text": (b'{"text": "' + b"[{" * MAX_CONTAINERS + b'"}', True),
    "brackets behind an escaped quote": (rb'{"text": "\"' + b"[" * 2 * MAX_CONTAINERS + b'"}', True),
    "brackets behind an escaped backslash": (rb'["\\",' + b"[" * 2 * MAX_CONTAINERS, False),
    "brackets in a text with all escapes": (rb'["\\\"\/\\' + b"[" * 2 * MAX_CONTAINERS + b'"]', True),
    "brackets without an end": (b"[" * 2 * MAX_CONTAINERS, False),
    "brackets in a text without an end": (b'{"text": "' + b"[" * 2 * MAX_CONTAINERS, True),
    "a text without an end that ends in a backslash": (b'["' + b"[" * 2 * MAX_CONTAINERS + b"\\", True),
    "a megabyte of escaped quotes without an end": (b"[" * 2 * MAX_CONTAINERS + b'"\\' * 500_000, False),
}


@pytest.mark.parametrize(("body", "are_few"), CONTAINERS.values(), ids=CONTAINERS)
def test_lists_and_objects_are_counted_outside_texts(body: bytes, are_few: bool) -> None:
    assert has_few_containers(body) is are_few


@given(st.binary(max_size=20), st.integers(0, 5000))
def test_bytes_are_counted_as_by_python_in_short_texts_and_in_long_ones(piece: bytes, times: int) -> None:
    text = piece * times
    assert count_byte(text, b"[") == text.count(b"[")
    assert count_byte(text + b"[" * times, b"[") == text.count(b"[") + times
