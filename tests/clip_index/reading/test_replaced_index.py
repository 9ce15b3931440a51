"""A reader whose index is replaced under the same path opens what is there now."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from clip_index.errors import DamagedFile, EncoderMismatch
from clip_index.generations.watermark import Watermark, write_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.writing.shard_writer import ShardWriter
from fakes.shards import (
    add,
    content,
    create_index,
    description,
    fingerprint,
    pack_path,
    take_over,
    unit_vectors,
)

SHARD = "content-uploads-0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "index"


def reader_of(root: Path) -> IndexReader:
    """A reader for which each reload comes long after the last one."""
    return IndexReader(root, clock=lambda: time.monotonic() * 1_000_000)


def fill(index: IndexDirectory, ids: Sequence[str], partition: int = 0) -> ShardWriter:
    """Commit each content as a generation of its own."""
    writer = take_over(index, partition)
    for content_id in ids:
        add(writer, [lambda o, content_id=content_id: content(content_id, o)])
        writer.commit()
    return writer


def build_again(root: Path, ids: Sequence[str]) -> ShardWriter:
    shutil.rmtree(root)
    return fill(create_index(root), ids)


def found_ids(reader: IndexReader) -> list[str]:
    assert reader.searcher is not None
    hits = reader.searcher.search(unit_vectors(1), k=100, modality="image")[0]
    return sorted(hit.content_id for hit in hits)


def watermark_of(reader: IndexReader) -> int | None:
    assert reader.searcher is not None
    return reader.searcher.shards[SHARD].watermark_ms


@pytest.mark.parametrize("ids", [["x"], ["x", "y", "z"], ["u", "v", "w", "x", "y"]])
def test_an_index_that_was_built_again_is_served_whatever_its_generation(root: Path, ids: list[str]) -> None:
    """With fewer generations than before, with as many, and with more."""
    fill(create_index(root), ["a", "b", "c"])
    reader = reader_of(root)
    reader.reload()
    writer = build_again(root, ids)
    assert reader.reload() is True
    assert found_ids(reader) == sorted(ids)
    assert reader.reload() is False
    add(writer, [lambda o: content("next", o)])
    writer.commit()
    assert reader.reload() is True
    assert found_ids(reader) == sorted([*ids, "next"])


def test_a_backup_that_was_put_back_is_served(root: Path, tmp_path: Path) -> None:
    writer = fill(create_index(root), ["a"])
    shutil.copytree(root, tmp_path / "backup")
    add(writer, [lambda o: content("b", o)])
    writer.commit()
    reader = reader_of(root)
    reader.reload()
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "backup", root)
    assert reader.reload() is True
    assert found_ids(reader) == ["a"]


def test_the_watermark_of_the_new_index_is_not_claimed_for_the_former_one(root: Path) -> None:
    fill(create_index(root), ["a", "b"])
    reader = IndexReader(root, clock=lambda: 0.0)  # once it has listed the directory, it does not again
    for _ in range(2):
        reader.reload()
    build_again(root, ["x"]).renew_watermark(1_700_000_000_000)
    reader.reload()
    assert (found_ids(reader), watermark_of(reader)) == (["a", "b"], None)


@pytest.mark.parametrize("ids", [["x"], ["x", "y", "z"]])
def test_the_watermark_of_the_former_index_is_not_claimed_for_the_new_one(root: Path, ids: list[str]) -> None:
    fill(create_index(root), ["a", "b"]).renew_watermark(1_800_000_000_000)
    reader = reader_of(root)
    reader.reload()
    assert watermark_of(reader) == 1_800_000_000_000
    writer = build_again(root, ids)
    reader.reload()
    assert watermark_of(reader) is None
    writer.renew_watermark(1_700_000_000_000)
    reader.reload()
    assert watermark_of(reader) == 1_700_000_000_000


def test_a_watermark_of_a_later_writer_is_not_claimed_for_an_earlier_ones_generation(root: Path) -> None:
    writer = fill(create_index(root), ["a"])
    later = Watermark(1_700_000_000_000, writer.committed_next_offset, writer.manifest.writer_epoch + 1)
    write_watermark(writer.store, later)
    reader = reader_of(root)
    reader.reload()
    assert watermark_of(reader) is None


def test_the_watermark_outlives_a_change_of_owner(root: Path) -> None:
    index = create_index(root)
    fill(index, ["a"]).renew_watermark(1_700_000_000_000)
    take_over(index, writer_id="next owner")
    reader = reader_of(root)
    reader.reload()
    assert watermark_of(reader) == 1_700_000_000_000


def test_damage_in_the_former_index_is_not_held_against_the_new_one(root: Path) -> None:
    writer = fill(create_index(root), ["a"])
    reader = reader_of(root)
    reader.reload()
    add(writer, [lambda o: content("b", o)])
    writer.commit()
    file = pack_path(writer)
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    with pytest.raises(DamagedFile, match=file.name):
        reader.reload()
    build_again(root, ["x", "y"])
    assert reader.reload() is True
    assert found_ids(reader) == ["x", "y"]


def test_while_the_directory_is_away_the_former_index_serves_on(root: Path, tmp_path: Path) -> None:
    fill(create_index(root), ["a"])
    reader = reader_of(root)
    reader.reload()
    root.rename(tmp_path / "away")
    with pytest.raises(DamagedFile, match="generation 2 was served, and there is none now"):
        reader.reload()
    assert found_ids(reader) == ["a"]
    (tmp_path / "away").rename(root)
    assert reader.reload() is False


def test_a_shard_that_is_not_built_again_yet_serves_on_beside_those_that_are(root: Path) -> None:
    index = create_index(root, num_partitions=2)
    fill(index, ["a"], 0)
    fill(index, ["b"], 1)
    reader = reader_of(root)
    reader.reload()
    shutil.rmtree(root)
    index = create_index(root, num_partitions=2)
    fill(index, ["x"], 0)
    with pytest.raises(DamagedFile, match="content-uploads-1"):
        reader.reload()
    assert found_ids(reader) == ["b", "x"]
    fill(index, ["y"], 1)
    assert reader.reload() is True
    assert found_ids(reader) == ["x", "y"]


def test_an_index_of_another_number_of_partitions_is_followed(root: Path) -> None:
    fill(create_index(root), ["a"])
    reader = reader_of(root)
    reader.reload()
    shutil.rmtree(root)
    index = create_index(root, num_partitions=2, topic_id="another")
    fill(index, ["x"], 0)
    fill(index, ["y"], 1)
    assert reader.reload() is True
    assert reader.index is not None
    assert reader.index.description.num_partitions == 2
    assert found_ids(reader) == ["x", "y"]


def test_an_index_of_another_id_is_followed_where_none_was_asked_for(root: Path) -> None:
    fill(create_index(root), ["a"])
    reader = reader_of(root)
    reader.reload()
    shutil.rmtree(root)
    fill(IndexDirectory.create(root, "second", description()), ["x"])
    assert reader.reload() is True
    assert found_ids(reader) == ["x"]


def test_an_index_of_another_encoder_is_refused_and_the_former_one_serves_on(root: Path) -> None:
    fill(create_index(root), ["a"])
    reader = IndexReader(root, "main", fingerprint(), clock=lambda: time.monotonic() * 1_000_000)
    reader.reload()
    shutil.rmtree(root)
    fill(create_index(root, fingerprint=fingerprint(weights_digest="01")), ["x"])
    for _ in range(2):
        with pytest.raises(EncoderMismatch):
            reader.reload()
    assert found_ids(reader) == ["a"]


def test_an_unreadable_description_does_not_stop_the_reader_of_a_sound_index(root: Path) -> None:
    index = create_index(root)
    writer = fill(index, ["a"])
    reader = reader_of(root)
    reader.reload()
    (index.path / "index.json").chmod(0o644)
    (index.path / "index.json").write_bytes(b"{")
    add(writer, [lambda o: content("b", o)])
    writer.commit()
    assert reader.reload() is True
    assert found_ids(reader) == ["a", "b"]
