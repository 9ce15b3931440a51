"""A reader on a disk that fails at one file: the other shards move on."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader, ShardReader
from clip_index.storage import file_digest
from clip_index.writing.shard_writer import ShardWriter
from fakes.failing_disk import fail
from fakes.shards import add, content, create_index, path_of, take_over
from tests.clip_index.writing.test_commit_trouble import live_ids


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    return take_over(index)


def test_a_shard_that_moved_before_another_failed_is_served_by_the_next_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = create_index(tmp_path, num_partitions=2)
    reader = IndexReader(tmp_path)
    writer = take_over(index, 0)
    reader.reload()
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reload = ShardReader.reload

    def fail_for_the_second(shard: ShardReader) -> bool:
        return fail() if shard.view.name.endswith("-1") else reload(shard)  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "reload", fail_for_the_second)
        with pytest.raises(OSError, match="input/output"):
            reader.reload()
    assert reader.reload() is True
    assert reader.searcher is not None
    assert reader.searcher.find("a") is not None


def test_a_shard_that_the_disk_does_not_read_keeps_no_other_from_moving_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = create_index(tmp_path, num_partitions=2)
    writers = [take_over(index, partition) for partition in range(2)]
    reader = IndexReader(tmp_path)
    reader.reload()
    for writer, name in zip(writers, "ab", strict=True):
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    verify_file = file_digest.verify_file

    def fail_for_the_first(path: Path, digest: file_digest.FileDigest) -> None:
        fail() if path_of(writers[0]) in path.parents else verify_file(path, digest)

    with monkeypatch.context() as patch:
        patch.setattr(file_digest, "verify_file", fail_for_the_first)
        with pytest.raises(OSError, match="input/output"):
            reader.reload()
        assert reader.searcher is not None
        assert [reader.searcher.find(name) is not None for name in "ab"] == [False, True]
    reader.reload()
    assert [reader.searcher.find(name) is not None for name in "ab"] == [True, True]


def test_a_watermark_that_the_disk_does_not_read_hides_no_content(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    (path_of(writer) / "watermark.json").mkdir()
    assert live_ids(index) == {"a"}
