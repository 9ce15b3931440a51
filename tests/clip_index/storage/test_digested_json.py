"""Documents with their own digest: what is written now, and what earlier releases have written."""

from __future__ import annotations

import json
from typing import Any

import pytest
import xxhash

from clip_index.errors import DamagedFile
from clip_index.storage.digested_json import dump_digested, parse_digested

DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"a": 1},
    {"b": [1, {"z": None, "ä": ',"self_xxh3_128":"'}], "a": "text, with: spaces"},
]


def as_earlier_releases_wrote(fields: dict[str, Any]) -> bytes:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(
        {**fields, "self_xxh3_128": xxhash.xxh3_128_hexdigest(canonical)}, sort_keys=True
    ).encode()


@pytest.mark.parametrize("fields", DOCUMENTS, ids=str)
def test_a_document_is_read_in_its_present_and_in_its_former_form(fields: dict[str, Any]) -> None:
    assert parse_digested(dump_digested(fields), "file") == fields
    assert parse_digested(as_earlier_releases_wrote(fields), "file") == fields


@pytest.mark.parametrize("fields", DOCUMENTS, ids=str)
def test_earlier_releases_find_the_digest_that_they_expect(fields: dict[str, Any]) -> None:
    read = json.loads(dump_digested(fields))
    digest = read.pop("self_xxh3_128")
    canonical = json.dumps(read, sort_keys=True, separators=(",", ":")).encode()
    assert (read, digest) == (fields, xxhash.xxh3_128_hexdigest(canonical))


@pytest.mark.parametrize("write", [dump_digested, as_earlier_releases_wrote])
def test_every_changed_bit_is_damage_or_changes_nothing(write: Any) -> None:
    fields = DOCUMENTS[2]
    data = write(fields)
    for position in range(8 * len(data)):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            assert parse_digested(bytes(changed), "file") == fields
        except DamagedFile:
            continue


@pytest.mark.parametrize("data", [b"", b"[]", b"[1]", b"{}", b'{"a":1}', b'1,"self_xxh3_128":"00"}'])
def test_what_has_no_digest_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedFile):
        parse_digested(data, "file")
