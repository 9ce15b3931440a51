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
    completed,
    contents_batch,
    open_columns,
    write_columns,
)
from clip_index.storage.mapped_part import map_file
from clip_index.storage.pack import PackWriter

EMBEDDINGS = np.zeros((1, 2), np.float32)
PLAIN = EncodedContent("plain", 4, "image", EMBEDDINGS, ContentFacts(source="tests", occurred_at_ms=1000))
FULL = EncodedContent(
    "full",
    7,
    "text",
    EMBEDDINGS,
    ContentFacts(
        source="tests",
        occurred_at_ms=2000,
        owner_id="owner",
        link="a:b",
        text="words",
        title="A text",
        sha256="9f86",
        is_truncated=True,
    ),
    version=3,
)
METADATA: dict[str, MetadataValue] = {"colour": "red", "is_new": True, "price": 1.5, "count": 2, "shade": ""}
TAGS = {"tags": ("new", "sale"), "none": ()}
DESCRIBED = EncodedContent(
    "described",
    9,
    "image",
    EMBEDDINGS,
    ContentFacts(source="", occurred_at_ms=3000, metadata=METADATA | TAGS),
)
COMMON = {"metadata_text": [], "metadata_number": [], "metadata_boolean": [], "metadata_texts": []}


def test_each_row_keeps_its_own_values_whatever_stands_beside_it(tmp_path: Path) -> None:
    rows = [BufferedContent(PLAIN, None), BufferedContent(DESCRIBED, 5), BufferedContent(FULL, 3)]
    with PackWriter(tmp_path / "pack") as pack, pack.part("contents.arrow") as file:
        write_columns(file, contents_batch(rows))
    plain, described, full = open_columns(map_file(tmp_path / "pack")).to_pylist()
    absent = dict.fromkeys(("floor", "version", "owner_id", "link", "text", "title", "sha256"))
    assert plain == {
        **COMMON,
        **absent,
        "is_truncated": False,
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
        "title": "A text",
        "sha256": "9f86",
        "is_truncated": True,
    }
    assert described["metadata_text"] == [("colour", "red"), ("shade", "")]
    assert described["metadata_number"] == [("price", 1.5), ("count", 2.0)]
    assert described["metadata_boolean"] == [("is_new", True)]
    assert described["metadata_texts"] == [("tags", ["new", "sale"]), ("none", [])]


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_the_schema_does_not_depend_on_what_there_is(num_rows: int) -> None:
    batch = contents_batch([BufferedContent(PLAIN, None)] * num_rows)
    assert batch.schema == CONTENTS_SCHEMA
    assert batch.num_rows == num_rows
    assert isinstance(batch, pa.RecordBatch)


def test_a_segment_of_an_earlier_release_gets_its_missing_columns_as_nulls() -> None:
    batch = contents_batch([BufferedContent(FULL, 3), BufferedContent(PLAIN, None)])
    earlier = batch.drop_columns(["title", "sha256", "is_truncated", "metadata_texts"])
    whole = completed(earlier, CONTENTS_SCHEMA)
    assert whole.schema == CONTENTS_SCHEMA
    assert whole.column("title").null_count == 2
    assert whole.drop_columns(["title", "sha256", "is_truncated", "metadata_texts"]).equals(earlier)


def test_a_column_of_a_later_release_stays_behind_those_of_today() -> None:
    batch = contents_batch([BufferedContent(PLAIN, None)]).append_column("language", pa.array(["de"]))
    assert completed(batch.drop_columns(["title"]), CONTENTS_SCHEMA).schema.names == [
        *CONTENTS_SCHEMA.names,
        "language",
    ]
