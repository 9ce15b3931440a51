"""Schemas on disk are whole or absent, and belong to one registry."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from consumer.registry.kept_schemas import KeptSchemas
from schemas.framing import SchemaKey
from schemas.registered import RegisteredSchema

SCHEMA = RegisteredSchema("AVRO", '"string"', ('"int"',))


@pytest.mark.parametrize("key", [7, UUID(int=7)], ids=["id", "guid"])
def test_a_kept_schema_is_read_by_the_next_process(tmp_path: Path, key: SchemaKey) -> None:
    KeptSchemas(tmp_path, "http://registry").keep(key, SCHEMA)
    assert KeptSchemas(tmp_path, "http://registry/").read(key) == SCHEMA
    assert KeptSchemas(tmp_path, "http://another").read(key) is None
    assert KeptSchemas(tmp_path, "http://registry").read(8) is None


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b"\xff", None])
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, damaged: bytes | None) -> None:
    kept = KeptSchemas(tmp_path, "http://registry")
    kept.keep(7, SCHEMA)
    [path] = tmp_path.rglob("id-7.json")
    path.write_bytes(path.read_bytes().replace(b"string", b"strong") if damaged is None else damaged)
    assert kept.read(7) is None
    kept.keep(7, SCHEMA)
    assert kept.read(7) == SCHEMA
    assert [one.name for one in path.parent.iterdir()] == ["id-7.json"]
