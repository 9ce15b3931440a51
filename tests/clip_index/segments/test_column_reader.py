"""Contents read back through views of the mapped columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import EncodedContent, StoredContent
from clip_index.masks.row_masks import RowMasks
from clip_index.row_filter import AnyOf, RowFilter
from clip_index.segments.column_reader import ColumnReader
from clip_index.segments.columns import (
    CONTENTS_SCHEMA,
    BufferedContent,
    completed,
    contents_batch,
    open_columns,
    write_columns,
)
from clip_index.segments.recencies import recencies
from clip_index.storage.mapped_part import map_file
from clip_index.storage.pack import PackWriter
from fakes.shards import content

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
encoded = st.builds(
    content,
    content_id=texts.filter(bool),
    offset=st.integers(0, 2**62),
    modality=st.sampled_from(["text", "image"]),
    source=texts,
    version=st.none() | st.integers(0, 2**62),
    owner_id=st.none() | texts,
    link=st.none() | texts,
    text=st.none() | texts,
    metadata=st.dictionaries(
        texts,
        texts | st.booleans() | st.floats(allow_nan=False) | st.lists(texts, max_size=3).map(tuple),
        max_size=3,
    ),
    title=st.none() | texts,
    sha256=st.none() | texts,
    is_truncated=st.booleans(),
)


def stored(sent: EncodedContent) -> StoredContent:
    return StoredContent(**{name: getattr(sent, name) for name in StoredContent.__slots__})


@settings(max_examples=60)
@given(st.lists(encoded, min_size=1, max_size=20))
def test_every_row_is_read_as_it_was_written(sent: list[EncodedContent]) -> None:
    reader = ColumnReader(contents_batch([BufferedContent(item, None) for item in sent]))
    assert [reader.read(row) for row in range(len(sent))] == [stored(item) for item in sent]


def test_a_slice_is_read_at_its_own_rows() -> None:
    sent = [content(f"c-{n}", n, version=n % 2 or None, metadata={"n": float(n)}) for n in range(20)]
    reader = ColumnReader(contents_batch([BufferedContent(item, None) for item in sent]).slice(9))
    assert reader.read(2) == stored(sent[11])


def test_a_mapped_file_outlives_the_batch_that_it_was_opened_by(tmp_path: Path) -> None:
    sent = content("c", 3, text="a text", link="https://x.test")
    with PackWriter(tmp_path / "pack") as pack, pack.part("contents.arrow") as file:
        write_columns(file, contents_batch([BufferedContent(sent, None)]))
    assert ColumnReader(open_columns(map_file(tmp_path / "pack"))).read(0) == stored(sent)


def test_long_values_are_read_only_where_they_are_wanted() -> None:
    sent = content("c", 3, text="a text", metadata={"colour": "red"})
    reader = ColumnReader(contents_batch([BufferedContent(sent, None)]))
    with_text, with_metadata = reader.read(0, ["text"]).facts, reader.read(0, ["metadata"]).facts
    assert (with_text.text, with_text.metadata) == ("a text", {})
    assert (with_metadata.text, with_metadata.metadata) == (None, {"colour": "red"})


NEW_COLUMNS = ["title", "sha256", "is_truncated", "metadata_texts"]


@settings(max_examples=20)
@given(st.lists(encoded, min_size=1, max_size=5))
def test_a_segment_of_an_earlier_release_is_read_with_the_defaults_of_newer_facts(
    sent: list[EncodedContent],
) -> None:
    batch = contents_batch([BufferedContent(item, None) for item in sent]).drop_columns(NEW_COLUMNS)
    reader = ColumnReader(completed(batch, CONTENTS_SCHEMA))
    for row, item in enumerate(sent):
        older = {key: v for key, v in item.facts.metadata.items() if not isinstance(v, tuple)}
        facts = replace(item.facts, title=None, sha256=None, is_truncated=False, metadata=older)
        assert reader.read(row).facts == facts


def test_a_filter_finds_no_list_in_a_segment_of_an_earlier_release() -> None:
    batch = contents_batch([BufferedContent(content("c", metadata={"tags": "new"}), None)])
    masks = RowMasks(completed(batch.drop_columns(NEW_COLUMNS), CONTENTS_SCHEMA))
    assert masks.find(RowFilter(must=(AnyOf("metadata.tags", ("new",)),))).tolist() == [True]
    assert masks.find(RowFilter(must=(AnyOf("metadata.tags", ("old",)),))).tolist() == [False]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param({"version": 1}, {"version": 2, "occurred_at_ms": 1}, id="greater version"),
        pytest.param({"version": None}, {"version": 0}, id="any version beats none"),
        pytest.param({"occurred_at_ms": 1}, {"occurred_at_ms": 2}, id="later time at equal versions"),
    ],
)
def test_recency_goes_by_version_then_time(older: dict[str, int], newer: dict[str, int]) -> None:
    rows = [BufferedContent(content("c", **fields), None) for fields in (older, newer)]
    contents = contents_batch(rows)
    first, second = (recencies(contents, np.array([row])) for row in (0, 1))
    assert second.are_newer_than(first).tolist() == [True]
    assert first.are_newer_than(second).tolist() == first.are_newer_than(first).tolist() == [False]
