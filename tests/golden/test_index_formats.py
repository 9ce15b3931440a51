"""Every released format of an index stays readable, and the current writer can continue it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.content import FACT_NAMES, Modality, StoredContent
from clip_index.generations.history import manifest_name, read_newest
from clip_index.generations.manifest import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    QUANTISED_MAJOR,
    Manifest,
)
from clip_index.generations.manifest_format import READABLE_MAJORS
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.segments.columns import CONTENTS_SCHEMA, open_columns
from clip_index.segments.segment import Segment
from clip_index.segments.segment_files import new_segment_id
from clip_index.segments.segment_parts import SegmentParts
from clip_index.storage.local_store import LocalShardStore
from clip_index.vectors.lists.mapped_lists import has_lists
from clip_index.writing.merge import DROPPED, MergeJob, run_merge
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, removal, take_over, unit_vectors

GOLDEN = Path(__file__).parent
FORMATS = sorted(path.name for path in GOLDEN.glob("index-format-*"))


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / str(request.param)


@pytest.fixture
def expected(golden: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((golden / "expected.json").read_text())
    return fields


def open_searcher(root: Path) -> Searcher:
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def found_ids(searcher: Searcher, modality: Modality, query: list[float] | np.ndarray) -> list[str]:
    [hits] = searcher.search(np.array([query], np.float32).reshape(1, -1), k=100, modality=modality)
    return [hit.content_id for hit in hits]


def test_every_readable_format_has_a_golden_index() -> None:
    assert [f"index-format-{major}" for major in READABLE_MAJORS] == FORMATS


def test_it_shows_what_its_logs_say(golden: Path, expected: dict[str, Any]) -> None:
    searcher = open_searcher(golden / "root")
    assert [shard.next_offset for shard in searcher.shards.values()] == expected["next_offsets"]
    assert {shard.watermark_ms for shard in searcher.shards.values()} == {1_700_000_000_000}
    assert sum(sum(s.num_contents.values()) for s in searcher.shards.values()) == len(expected["contents"])
    for content_id, wanted in expected["contents"].items():
        location = searcher.find(content_id)
        assert location is not None, content_id
        thumbnail, embeddings = wanted.pop("thumbnail"), wanted.pop("embeddings")
        stored = searcher.read(location)
        assert {
            name: getattr(stored.facts if name in FACT_NAMES else stored, name) for name in wanted
        } == wanted
        assert searcher.thumbnail(location) == (thumbnail.encode() if thumbnail else None)
        assert searcher.embeddings(location) == pytest.approx(np.array(embeddings), abs=1e-3)


def test_it_is_searched_in_the_same_order(golden: Path, expected: dict[str, Any]) -> None:
    searcher = open_searcher(golden / "root")
    for search in expected["searches"]:
        assert found_ids(searcher, search["modality"], search["query"]) == search["best_first"]


def test_it_has_files_of_every_kind(golden: Path) -> None:
    """A kind of file that is not in the golden index could change its format unnoticed."""
    opened = [parts for shard in shards(golden) for parts in open_parts(shard)]
    for name in ("contents.arrow", "deletes.arrow", "thumbnails.arrow", "ids.npy", "owners.npy"):
        assert any(name in parts for parts in opened), name
    for name in ("image.faiss", "image.nodes.npy", "text.faiss", "text.nodes.npy"):
        assert any(name in parts for parts in opened), name
    vectors = [parts.map(name) for parts in opened for name in ("image.faiss", "text.faiss") if name in parts]
    assert {has_lists(part) for part in vectors} == {True, False}
    assert list(golden.glob("root/indexes/*/*/tombstones/*"))
    assert all(len(manifest_of(shard).segments) > 1 for shard in shards(golden))


def test_its_segments_and_tombstones_are_those_of_its_format(golden: Path) -> None:
    """Format 1: a folder for each segment, a file for all tombstones of one. Format 2: packs, and bitmaps.

    Format 3: quantised lists beside the embeddings that they stand for.
    """
    segments = [entry for shard in shards(golden) for entry in manifest_of(shard).segments]
    tombstones = [dead for shard in shards(golden) for dead in manifest_of(shard).tombstones.values()]
    is_first, is_quantised = golden.name == "index-format-1", golden.name == "index-format-3"
    assert any(entry.is_quantised for entry in segments) == is_quantised
    assert {entry.pack is None for entry in segments} == {is_first}
    assert any(dead.bitmap for dead in tombstones) == (not is_first)
    assert any(dead.file for dead in tombstones)


def shards(golden: Path) -> list[LocalShardStore]:
    return [LocalShardStore(path) for path in sorted(golden.glob("root/indexes/*/*-*"))]


def manifest_of(shard: LocalShardStore) -> Manifest:
    manifest = read_newest(shard)
    assert manifest is not None
    return manifest


def open_parts(shard: LocalShardStore) -> list[SegmentParts]:
    return [SegmentParts(shard, entry) for entry in manifest_of(shard).segments]


def test_a_writer_of_today_goes_on_from_a_copy(
    golden: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(golden / "root", root)
    writer = take_over(IndexDirectory.open(root), 0)
    assert writer.next_offset == expected["next_offsets"][0]
    vector = unit_vectors(500, dimension=8)
    for content_id, version in (("deleted at 5", 5), ("replaced", 3), ("new", None)):
        add(writer, [lambda o, i=content_id, v=version: content(i, o, version=v, embeddings=vector)])
    writer.commit()
    writer.close()
    searcher = open_searcher(root)
    assert set(found_ids(searcher, "image", vector)[:2]) == {"new", "replaced"}
    assert searcher.find("deleted at 5") is None, "the delete is remembered"
    assert searcher.find("long text") is not None


def test_a_merge_of_today_rewrites_its_segments_with_newer_ones(golden: Path, tmp_path: Path) -> None:
    """Its segments may lack columns that were added later."""
    root = tmp_path / "root"
    shutil.copytree(golden / "root", root)
    writer = take_over(IndexDirectory.open(root), 0)
    tagged = {"title": "A title", "metadata": {"tags": ("new",)}}
    add(writer, [lambda o: content("tagged", o, embeddings=unit_vectors(500, dimension=8), **tagged)])
    writer.commit()
    sources = writer.manifest.segments
    result = run_merge(
        MergeJob(
            store=writer.store,
            generation=writer.manifest.generation,
            segment_ids=tuple(source.segment_id for source in sources),
            merged_id=new_segment_id(9),
            started_ms=0,
        )
    )
    assert result.entry is not None
    assert len(sources) > 2
    merged = Segment(writer.store, result.entry)
    assert read_all(merged) == {
        content.content_id: content
        for source in sources
        for row, content in enumerate(read_all(Segment(writer.store, source)).values())
        if result.row_maps[source.segment_id][row] != DROPPED
    }
    assert read_all(merged)["tagged"].facts.title == "A title"
    writer.close()


def test_a_takeover_writes_the_least_format_that_tells_what_is_there_and_merges_rewrite_segments_bit_by_bit(
    golden: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    root, lanes, now = tmp_path / "root", InlineLanes(), [time.time()]
    shutil.copytree(golden / "root", root)
    settings = WriterSettings(
        collect_every_seconds=0.0, merge=MergeSettings(merge_factor=2, floor_entries=10**6)
    )
    index = IndexDirectory.open(root)
    before = manifest_of(LocalShardStore(index.shard_path(0))).segments
    writer = take_over(index, settings=settings, lanes=lanes, clock=lambda: now[0])
    written = json.loads(writer.store.read(manifest_name(writer.generation)))
    is_quantised = golden.name == "index-format-3"
    assert written["format"] == [QUANTISED_MAJOR if is_quantised else FORMAT_MAJOR, FORMAT_MINOR]
    assert writer.manifest.segments == before
    lanes.release(is_released=True)
    while len(writer.manifest.segments) > 1:
        writer.maintain()
        add(writer, [lambda o: removal("nobody", o)])
        writer.commit()
    add(writer, [lambda o: removal("nobody", o)])
    writer.commit()
    now[0] += 3600
    writer.maintain()
    writer.close()
    [merged] = writer.manifest.segments
    assert merged.pack is not None
    assert not merged.is_quantised
    assert [f"segments/{name}" for name in writer.store.list_names("segments")] == [merged.stored_name]
    searcher = open_searcher(root)
    assert {content_id for content_id in expected["contents"] if searcher.find(content_id)} == set(
        expected["contents"]
    )


def read_all(segment: Segment) -> dict[str, StoredContent]:
    """All contents of a segment by id, in the order of its rows."""
    contents = map(segment.read, range(segment.num_rows))
    return {content.content_id: content for content in contents}


def test_the_columns_of_its_segments_are_the_first_of_today_s(golden: Path) -> None:
    """The columns follow from the fields of `ContentFacts`: their names, order and types must not move.

    New ones are added behind them.
    """
    for parts in (parts for shard in shards(golden) for parts in open_parts(shard)):
        columns = list(open_columns(parts.map("contents.arrow")).schema)
        assert columns == [column for column in CONTENTS_SCHEMA if column.name in {c.name for c in columns}]
