"""What was computed from the same bytes before is found by their digest, in any segment, dead or alive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from clip_index.content import Derived, EncodedContent
from clip_index.segments.columns import open_columns
from clip_index.segments.segment import Segment
from clip_index.segments.segment_parts import SegmentParts
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.mapped_array import map_array
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, removal, take_over, unit_vectors, with_facts

DIGEST = b"0123456789abcdef" * 2
EAGER_MERGES = WriterSettings(merge=MergeSettings(merge_factor=2, floor_entries=2))


@pytest.fixture
def lanes() -> InlineLanes:
    lanes = InlineLanes()
    lanes.release(is_released=True)
    return lanes


@pytest.fixture
def writer(root: IndexRoot, lanes: InlineLanes) -> ShardWriter:
    return take_over(create_index(root), settings=EAGER_MERGES, lanes=lanes)


def made_of(digest: bytes | None, content_id: str, offset: int, **changes: object) -> EncodedContent:
    return content(content_id, offset, digest=digest, **changes)


def stored(writer: ShardWriter, digest: bytes = DIGEST) -> Derived:
    derived = writer.find_derived(digest)
    assert derived is not None
    return derived


def commit(writer: ShardWriter, *changes: object) -> None:
    add(writer, changes)  # type: ignore[arg-type]
    writer.commit()


def test_the_embeddings_thumbnail_and_cut_of_equal_bytes_are_found(writer: ShardWriter) -> None:
    one = made_of(DIGEST, "a", 0, modality="text", embeddings=unit_vectors(7, 3), thumbnail=b"webp")
    commit(writer, with_facts(one, is_truncated=True))
    derived = stored(writer)
    np.testing.assert_array_equal(derived.embeddings, one.embeddings.astype(np.float16).astype(np.float32))
    assert (derived.thumbnail, derived.is_truncated) == (b"webp", True)
    assert writer.find_derived(b"f" * 32) is None


def test_the_column_and_the_table_have_the_form_that_later_releases_read(writer: ShardWriter) -> None:
    digests = [bytes([9] * 32), None, bytes([1] * 32)]
    commit(writer, *(made_of(digest, f"c{row}", row) for row, digest in enumerate(digests)))
    [entry] = writer.manifest.segments
    parts = SegmentParts(writer.store, entry)
    columns = open_columns(parts.map("contents.arrow"))
    assert columns.schema.field("content_digest").type == pa.binary(32)
    assert columns.column("content_digest").to_pylist() == digests
    table = map_array(parts.map("digests.npy"))
    assert (table.dtype, table.tolist()) == (np.uint64, [[0x0101010101010101, 0x0909090909090909], [2, 0]])


def test_digests_that_begin_alike_are_not_confused(writer: ShardWriter) -> None:
    others = [made_of(DIGEST[:8] + bytes([number] * 24), f"c{number}", number) for number in range(5)]
    commit(writer, *others)
    assert writer.find_derived(DIGEST) is None
    for other in others:
        assert other.digest is not None
        expected = other.embeddings.astype(np.float16)
        np.testing.assert_array_equal(stored(writer, other.digest).embeddings.astype(np.float16), expected)


def test_what_is_only_in_the_buffer_is_not_there(writer: ShardWriter) -> None:
    add(writer, [made_of(DIGEST, "a", 0)])
    assert writer.find_derived(DIGEST) is None


def test_a_dead_row_is_found_until_a_merge_leaves_it_out(writer: ShardWriter) -> None:
    commit(writer, made_of(DIGEST, "a", 0), content("b", 1))
    commit(writer, removal("a", 2), content("c", 3))
    assert writer.find_derived(DIGEST) is not None
    for _ in range(4):
        writer.maintain()
    assert len(writer.manifest.segments) == 1
    assert writer.find_derived(DIGEST) is None


def test_the_newest_of_equal_bytes_is_taken(writer: ShardWriter) -> None:
    commit(writer, made_of(DIGEST, "a", 0, seed=1), content("b", 1))
    commit(writer, made_of(DIGEST, "a", 2, seed=2))
    expected = unit_vectors(2).astype(np.float16)
    np.testing.assert_array_equal(stored(writer).embeddings.astype(np.float16), expected)


def test_a_segment_of_an_earlier_release_merges_with_one_that_has_digests(writer: ShardWriter) -> None:
    commit(writer, content("old", 0), content("older", 1))
    [old] = writer.manifest.segments
    assert not old.has_part("digests.npy")
    commit(writer, made_of(DIGEST, "new", 2), made_of(None, "without", 3))
    for _ in range(4):
        writer.maintain()
    [merged] = writer.manifest.segments
    assert merged.has_part("digests.npy")
    assert merged.num_contents == 4
    expected = content("new", 2).embeddings.astype(np.float16)
    np.testing.assert_array_equal(stored(writer).embeddings.astype(np.float16), expected)


def test_a_column_of_digests_without_a_table_is_read_and_merged(writer: ShardWriter) -> None:
    """An earlier release that merges segments keeps columns that it does not know, and writes no table."""
    commit(writer, made_of(DIGEST, "a", 0), content("b", 1))
    [entry] = writer.manifest.segments
    assert entry.pack is not None
    parts = {name: part for name, part in entry.pack.parts.items() if name != "digests.npy"}
    segment = Segment(writer.store, replace(entry, pack=replace(entry.pack, parts=parts)))
    assert list(segment.find_digest(DIGEST)) == []
    assert segment.content_id(0) == "a"


def test_a_successor_finds_what_its_predecessor_committed(root: IndexRoot) -> None:
    index = create_index(root)
    writer = take_over(index)
    commit(writer, made_of(DIGEST, "a", 0))
    writer.close()
    assert writer.store.list_names("segments")
    assert take_over(index, writer_id="successor").find_derived(DIGEST) is not None
