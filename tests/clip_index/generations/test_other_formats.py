"""What another version of cliptide wrote is neither read nor taken for damage and repaired away."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_index.errors import OtherFormat
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.inspection import Inspection
from clip_index.generations.restoration import plan_refill, plan_repair
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.digested_json import dump_digested, parse_digested
from fakes.shards import add, content, create_index, take_over


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    """Two shards with a content each."""
    index = create_index(tmp_path, num_partitions=2)
    for partition in range(2):
        commit(index, partition, "old")
    return index


def commit(index: IndexDirectory, partition: int, name: str) -> None:
    writer = take_over(index, partition)
    add(writer, [lambda o: content(f"{name}-{partition}", o)])
    writer.commit()
    writer.close()


def commit_as_a_later_version(index: IndexDirectory, partition: int) -> Path:
    store = index.shard_store(partition)
    path = store.local_file(manifest_name(list_generations(store)[-1] + 1))
    path.write_bytes(dump_digested({"format": [4, 0], "what it holds": "is not known yet"}))
    return path


def test_a_shard_of_a_later_version_is_served_as_before_and_holds_no_other_back(
    index: IndexDirectory,
) -> None:
    reader = IndexReader(index.path.parent.parent)
    reader.reload()
    path = commit_as_a_later_version(index, 0)
    commit(index, 1, "new")
    with pytest.raises(
        OtherFormat, match=f"{path} has format 4, .* reads 1, 2 and 3: run the version that wrote it"
    ):
        reader.reload()
    assert reader.searcher is not None
    found = [content_id for content_id in ("old-0", "old-1", "new-1") if reader.searcher.find(content_id)]
    assert found == ["old-0", "old-1", "new-1"]


def test_it_is_not_taken_over(index: IndexDirectory) -> None:
    commit_as_a_later_version(index, 0)
    before = list_generations(index.shard_store(0))
    with pytest.raises(OtherFormat):
        take_over(index, 0)
    assert list_generations(index.shard_store(0)) == before


@pytest.mark.parametrize("plan", [plan_repair, plan_refill])
def test_it_is_not_repaired(index: IndexDirectory, plan: object) -> None:
    commit_as_a_later_version(index, 0)
    assert callable(plan)
    with pytest.raises(OtherFormat):
        plan(Inspection(index.shard_store(0)))


def test_a_whole_index_of_a_later_version_is_refused(index: IndexDirectory) -> None:
    path = index.path / "index.json"
    fields = parse_digested(path.read_bytes(), path)
    path.chmod(0o644)
    path.write_bytes(dump_digested(fields | {"format": 2}))
    with pytest.raises(OtherFormat, match="has format 2"):
        IndexDirectory.open(index.path.parent.parent)
