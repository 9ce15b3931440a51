"""Contents laid out column by column, and back through a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clip_index.content import ContentFacts, EncodedContent, MetadataValue
from clip_index.segments.columns import (
    CONTENTS_SCHEMA,
    BufferedContent,
    contents_batch,
    open_columns,
    write_columns,
)

EMBEDDINGS = np.zeros((1, 2), np.float32)
PLAIN = EncodedContent("plain", 4, "image", EMBEDDINGS, ContentFacts(source="tests", occurred_at_ms=1000))
FULL = EncodedContent(
    "full",
    7,
    "text",
    EMBEDDINGS,
    ContentFacts(source="tests", occurred_at_ms=2000, owner_id="owner", link="a:b", text="words"),
    version=3,
)
METADATA: dict[str, MetadataValue] = {"colour": "red", "is_new": True, "price": 1.5, "count": 2, "shade": ""}
DESCRIBED = EncodedContent(
    "described", 9, "image", EMBEDDINGS, ContentFacts(source="", occurred_at_ms=3000, metadata=METADATA)
)
COMMON = {"metadata_text": [], "metadata_number": [], "metadata_boolean": []}


def test_each_row_keeps_its_own_values_whatever_stands_beside_it(tmp_path: Path) -> None:
    rows = [BufferedContent(PLAIN, None), BufferedContent(DESCRIBED, 5), BufferedContent(FULL, 3)]
    write_columns(tmp_path / "contents.arrow", contents_batch(rows))
    plain, described, full = open_columns(tmp_path / "contents.arrow").to_pylist()
    absent = dict.fromkeys(("floor", "version", "owner_id", "link", "text"))
    assert plain == {
        **COMMON,
        **absent,
        "content_id": "plain",
        "offset": 4,
        "modality": "image",
        "source": "tests",
        "occurred_at_ms": 1000,
    }
    assert full == {
        **COMMON,
        "content_id": "full",
        "offset": 7,
        "floor": 3,
        "version": 3,
        "modality": "text",
        "source": "tests",
        "owner_id": "owner",
        "occurred_at_ms": 2000,
        "link": "a:b",
        "text": "words",
    }
    assert described["metadata_text"] == [("colour", "red"), ("shade", "")]
    assert described["metadata_number"] == [("price", 1.5), ("count", 2.0)]
    assert described["metadata_boolean"] == [("is_new", True)]


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_the_schema_does_not_depend_on_what_there_is(num_rows: int) -> None:
    batch = contents_batch([BufferedContent(PLAIN, None)] * num_rows)
    assert batch.schema == CONTENTS_SCHEMA
    assert batch.num_rows == num_rows
    assert isinstance(batch, pa.RecordBatch)
