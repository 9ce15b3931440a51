"""Columns come and go with releases: a segment of any release is read, and merged with those of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from clip_index.content import StoredContent
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.segments import columns, segment_files
from clip_index.segments.columns import CONTENTS_SCHEMA, BufferedContent, contents_batch
from clip_index.writing.merge import MergeJob, run_merge
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, take_over

LATER = pa.field("added_later", pa.string())
ADDED = ["link", "metadata_number", "owner_id", "occurred_at_ms"]
"""Columns of this release that the earlier one of these tests does not have yet."""


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    settings = WriterSettings(merge=MergeSettings(merge_factor=2))
    return take_over(index, lanes=InlineLanes(), settings=settings)


def commit(writer: ShardWriter, content_id: str) -> None:
    described = content(content_id, writer.next_offset, link=f"https://shop/{content_id}", owner_id="us")
    facts = replace(described.facts, metadata={"price": 2.5, "colour": "red"})
    add(writer, [replace(described, facts=facts)])
    writer.commit()


def commit_as_earlier(writer: ShardWriter, content_id: str, patch: pytest.MonkeyPatch) -> None:
    """Write a segment that lacks some of today's columns."""
    earlier = pa.schema([field for field in CONTENTS_SCHEMA if field.name not in ADDED])
    with patch.context() as release:
        release.setattr(columns, "CONTENTS_SCHEMA", earlier)
        release.setattr(segment_files, "_write_tables", without_owners)
        commit(writer, content_id)


write_tables = segment_files._write_tables


def without_owners(directory: Path, rows: segment_files.SegmentRows) -> None:
    owners = pa.nulls(rows.contents.num_rows, pa.string())
    write_tables(directory, replace(rows, contents=rows.contents.append_column("owner_id", owners)))


def commit_as_later(writer: ShardWriter, content_id: str, patch: pytest.MonkeyPatch) -> None:
    """Write a segment with a column that today's release does not know, in the middle."""

    def contents_of_later(rows: Sequence[BufferedContent]) -> pa.RecordBatch:
        batch = contents_batch(rows)
        return batch.add_column(2, LATER, pa.array(["later"] * batch.num_rows))

    with patch.context() as release:
        release.setattr(segment_files, "contents_batch", contents_of_later)
        commit(writer, content_id)


def read(index: IndexDirectory, content_id: str) -> StoredContent:
    reader = IndexReader(index.path.parent.parent)
    reader.reload()
    assert reader.searcher is not None
    found = reader.searcher.find(content_id)
    assert found is not None
    return reader.searcher.read(found)


def merge_all(writer: ShardWriter) -> None:
    lanes = writer._lanes
    assert isinstance(lanes, InlineLanes)
    writer.maintain()
    lanes.release(is_released=True)
    writer.maintain()
    assert len(writer.manifest.segments) == 1


@pytest.mark.parametrize("is_merged", [False, True], ids=["as written", "merged"])
def test_a_column_that_was_added_is_null_in_segments_of_an_earlier_release(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch, is_merged: bool
) -> None:
    commit_as_earlier(writer, "old", monkeypatch)
    commit(writer, "new")
    if is_merged:
        merge_all(writer)
    old, new = read(index, "old"), read(index, "new")
    assert (old.facts.link, old.facts.owner_id, old.facts.metadata) == (None, None, {"colour": "red"})
    assert (new.facts.link, new.facts.owner_id) == ("https://shop/new", "us")
    assert new.facts.metadata == {"price": 2.5, "colour": "red"}


@pytest.mark.parametrize("is_merged", [False, True], ids=["as written", "merged"])
def test_a_column_of_a_later_release_is_passed_over_and_kept_in_a_merge(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch, is_merged: bool
) -> None:
    commit(writer, "known")
    commit_as_later(writer, "later", monkeypatch)
    if is_merged:
        merge_all(writer)
        [segment] = writer._current.state.segments.values()
        assert dict(
            zip(
                segment.contents.column("content_id").to_pylist(),
                segment.contents.column("added_later").to_pylist(),
                strict=True,
            )
        ) == {"known": None, "later": "later"}
    assert [read(index, name).facts.link for name in ("known", "later")] == [
        "https://shop/known",
        "https://shop/later",
    ]


def test_segments_of_three_releases_merge_in_any_order(
    index: IndexDirectory, writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_as_later(writer, "later", monkeypatch)
    commit_as_earlier(writer, "old", monkeypatch)
    commit(writer, "known")
    segment_ids = tuple(entry.segment_id for entry in writer.manifest.segments)
    merged = run_merge(MergeJob(writer.store, writer.generation, segment_ids, "1-merged", 0))
    assert merged.entry is not None
    assert merged.entry.num_contents == 3
