"""An index of a union or enum that the schema does not have is refused, so damage makes no other event."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.sample_events import SAMPLE_EVENTS
from schemas.avro.indices import index_check
from schemas.codec import EventDecoder, encode_event
from schemas.errors import BadEvent, UnknownSchema
from schemas.events import DeleteEvent, Event, UploadEvent

DECODER = EventDecoder()
UPLOADS = {name: event for name, event in SAMPLE_EVENTS.items() if isinstance(event, UploadEvent)}
UPSERT, DELETE = b"\x00", b"\x02"  # the operation's index as Avro writes it


def decoded(key: bytes, value: bytes) -> Event | None:
    try:
        return DECODER.decode(key=key, value=value, timestamp_ms=0)
    except (BadEvent, UnknownSchema):
        return None


def flips(value: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield every value that differs in one bit, with the position of its byte."""
    for position in range(len(value)):
        for bit in range(8):
            yield position, value[:position] + bytes([value[position] ^ 1 << bit]) + value[position + 1 :]


@pytest.mark.parametrize("name", UPLOADS)
def test_one_flipped_bit_makes_a_delete_only_by_naming_it(name: str) -> None:
    """The one such flip leaves a delete event that carries a content, which producers may send."""
    upload = UPLOADS[name]
    encoded = encode_event(upload)
    made = [
        (encoded.value[position : position + 1], flipped[position : position + 1])
        for position, flipped in flips(encoded.value)
        if isinstance(decoded(encoded.key, flipped), DeleteEvent)
    ]
    assert made == [(UPSERT, DELETE)]


def test_a_negative_operation_is_undecodable() -> None:
    encoded = encode_event(UPLOADS["text"])
    values = [flipped for position, flipped in flips(encoded.value) if flipped[position] == 0x01]
    outcomes = [decoded(encoded.key, value) for value in values]
    assert not any(isinstance(outcome, DeleteEvent) for outcome in outcomes)
    assert None in outcomes


SCHEMA: Any = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Node",
        "fields": [
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
            {"name": "again", "type": ["null", "Kind"]},
            {"name": "next", "type": ["null", "Node"]},
            {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 3}},
            {"name": "flags", "type": {"type": "array", "items": ["boolean", "float", "double", "int"]}},
            {"name": "names", "type": {"type": "map", "values": ["null", "string", "bytes", "long"]}},
        ],
    }
)
CHECK = index_check(SCHEMA)


def nodes() -> st.SearchStrategy[dict[str, Any]]:
    kind = st.sampled_from("ab")
    longs = st.integers(-(2**63), 2**63 - 1)
    flags = st.lists(
        st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**31), 2**31 - 1), max_size=4
    )
    names = st.dictionaries(st.text(max_size=3), st.none() | st.text() | st.binary() | longs, max_size=4)
    fields = {"kind": kind, "again": st.none() | kind, "digest": st.binary(min_size=3, max_size=3)}
    leaves = st.fixed_dictionaries({**fields, "flags": flags, "names": names, "next": st.none()})
    return st.recursive(
        leaves,
        lambda inner: st.fixed_dictionaries({**fields, "flags": flags, "names": names, "next": inner}),
        max_leaves=3,
    )


@given(nodes())
def test_whatever_is_well_written_is_walked_to_its_end(node: dict[str, Any]) -> None:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, SCHEMA, node)
    assert CHECK(stream.getvalue(), 0) == len(stream.getvalue())


def test_blocks_may_name_their_size() -> None:
    """Encode a block that readers can skip: a negative count, then its size in bytes."""
    head, blocks_of_two = b"\x00\x00\x00abc", b"\x03\x08\x00\x01\x00\x00\x00"
    assert CHECK(head + blocks_of_two + b"\x00", 0) == len(head + blocks_of_two) + 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x01", id="negative symbol"),
        pytest.param(b"\x04", id="symbol beyond the last"),
        pytest.param(b"\x00\x01", id="negative branch"),
        pytest.param(b"\x00\x04", id="branch beyond the last"),
        pytest.param(b"\x00\x02\x01", id="negative symbol by reference"),
        pytest.param(b"\x00\x00\x00abc\x00\x02\x01", id="negative length"),
    ],
)
def test_an_index_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"index|length"):
        CHECK(data, 0)


@pytest.mark.parametrize(
    "item", ["null", {"type": "record", "name": "r", "fields": []}, {"type": "fixed", "name": "f", "size": 0}]
)
def test_items_that_take_no_bytes_are_refused_because_a_few_bytes_could_name_millions(item: object) -> None:
    parsed = fastavro.parse_schema({"type": "array", "items": item})
    check = index_check(parsed, is_event=False)
    million = b"\x80\x89\x7a"
    with pytest.raises(ValueError, match="1000000 items in 0 bytes"):
        check(million * 500_000, 0)
    assert check(b"\x00", 0) == 1


def test_data_that_ends_early_is_refused() -> None:
    with pytest.raises(IndexError):
        CHECK(b"\x00\x00\x00abc", 0)


class TestLongIndices:
    """Integers that do not fit into one byte, or that take two without need."""

    ENUM = staticmethod(
        index_check({"type": "enum", "name": "Many", "symbols": [f"s{n}" for n in range(100)]})
    )
    STRING = staticmethod(index_check("string"))
    MAP = staticmethod(index_check({"type": "map", "values": "long"}))

    @staticmethod
    def long(number: int) -> bytes:
        stream = BytesIO()
        fastavro.schemaless_writer(stream, "long", number)
        return stream.getvalue()

    @pytest.mark.parametrize("index", [0, 63, 64, 99])
    def test_every_index_of_a_long_enum_is_walked(self, index: int) -> None:
        encoded = self.long(index)
        assert self.ENUM(encoded + b"rest", 0) == len(encoded)

    @pytest.mark.parametrize("index", [-100, -65, -64, -1, 100, 2**40])
    def test_an_index_out_of_range_is_refused(self, index: int) -> None:
        with pytest.raises(ValueError, match=f"index {index} of 100"):
            self.ENUM(self.long(index), 0)

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 10_000])
    def test_a_string_of_any_length_is_stepped_over(self, size: int) -> None:
        encoded = self.long(size) + b"x" * size
        assert self.STRING(encoded + b"rest", 0) == len(encoded)

    @pytest.mark.parametrize("size", [-1, -64, -65])
    def test_a_negative_length_is_refused(self, size: int) -> None:
        with pytest.raises(ValueError, match=f"a length of {size}"):
            self.STRING(self.long(size), 0)

    def test_a_number_that_takes_more_bytes_than_it_needs_means_the_same(self) -> None:
        assert self.ENUM(b"\x82\x00", 0) == 2
        assert self.STRING(b"\x82\x00x", 0) == 3
        assert self.MAP(b"\x80\x00", 0) == 2

    @pytest.mark.parametrize("end", [b"", b"\x00"])
    def test_a_number_of_more_than_64_bits_is_refused(self, end: bytes) -> None:
        """Reading megabytes of it would take hours, because the time grows with the square of its length."""
        for check in (self.ENUM, self.STRING, self.MAP):
            with pytest.raises(ValueError, match="more than 64 bits"):
                check(b"\x80" * 10 + end, 0)

    def test_a_number_of_64_bits_is_read(self) -> None:
        assert self.ENUM(b"\x80" * 9 + b"\x00", 0) == 10

    @pytest.mark.parametrize("cut", [b"", b"\x80", b"\x82"])
    def test_an_end_within_a_number_is_behind_the_data(self, cut: bytes) -> None:
        for check in (self.ENUM, self.STRING, self.MAP):
            with pytest.raises(IndexError):
                check(cut, 0)
