"""Which index serves: the files that name it, their history, and how they are moved."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import DamagedFile, IndexMissing, IndexRefused
from clip_index.indexes.index_directory import IndexDirectory, list_indexes, repair_current
from clip_index.indexes.pointer import (
    find_former,
    name_current,
    name_former,
    newest_number,
    read_history,
    read_pointer,
)
from clip_index.indexes.recorded_model import RecordedModel, read_model, record_model
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.index_roots import IndexRoot, open_root
from clip_index.storage.shard_store import ShardStore
from fakes.shards import create_index, description
from fakes.stored_damage import rewrite


@pytest.fixture
def top(root: IndexRoot) -> ShardStore:
    """A root with the indexes main, v2 and v3, of which main serves."""
    create_index(root)
    for index_id in ("v2", "v3"):
        IndexDirectory.create(root, index_id, description(group_id=f"cliptide-{index_id}"))
    return open_root(root)


def names(top: ShardStore) -> list[str]:
    return [pointer.index_id for pointer in read_history(top)]


def switch_to(top: ShardStore, index_id: str) -> None:
    name_current(top, index_id, after=newest_number(top))


def test_a_second_index_does_not_serve_until_it_is_named(top: ShardStore, root: IndexRoot) -> None:
    assert list_indexes(root) == ["main", "v2", "v3"]
    assert IndexDirectory.open(root).index_id == "main"
    switch_to(top, "v2")
    assert IndexDirectory.open(root).index_id == "v2"


def test_pointers_are_created_by_number_and_never_replaced(top: ShardStore, root: IndexRoot) -> None:
    first = top.read("current-1.json")
    switch_to(top, "v2")
    switch_to(top, "v3")
    assert [(one.number, one.index_id) for one in read_history(top)] == [(1, "main"), (2, "v2"), (3, "v3")]
    assert top.read("current-1.json") == first
    assert read_pointer(top).named_at_ms is not None


def test_of_two_that_switch_at_once_one_is_refused_and_told_what_the_other_named(top: ShardStore) -> None:
    name_current(top, "v2", after=1)
    with pytest.raises(IndexRefused, match=r"current-2\.json names v2 since another process wrote it"):
        name_current(top, "v3", after=1)
    assert read_pointer(top).index_id == "v2"


def test_of_many_that_switch_at_once_just_one_wins(top: ShardStore) -> None:
    def switch(number: int) -> str | None:
        try:
            return name_current(top, f"v{number}", after=1).index_id
        except IndexRefused:
            return None

    with ThreadPoolExecutor(8) as threads:
        named = [found for found in threads.map(switch, range(8)) if found is not None]
    assert named == [read_pointer(top).index_id]
    assert newest_number(top) == 2


def test_a_rollback_undoes_one_switch_and_the_next_one_the_switch_before(top: ShardStore) -> None:
    switch_to(top, "v2")
    switch_to(top, "v3")
    assert find_former(top).index_id == "v2"
    assert name_former(top).index_id == "v2"
    assert name_former(top).index_id == "main"
    with pytest.raises(IndexRefused, match="no index served before main"):
        name_former(top)
    assert names(top) == ["main", "v2", "v3", "v2", "main"]


def test_a_switch_after_a_rollback_can_be_rolled_back_again(top: ShardStore) -> None:
    switch_to(top, "v2")
    name_former(top)
    switch_to(top, "v3")
    assert name_former(top).index_id == "main"


def test_a_damaged_newest_pointer_is_named_and_a_damaged_old_one_is_left_out(
    top: ShardStore, root: IndexRoot
) -> None:
    rewrite(top, "current-2.json", b"{")
    with pytest.raises(DamagedFile, match="cliptide snapshot repair"):
        read_pointer(top)
    assert repair_current(root, "v2") == "v2"
    assert names(top) == ["main", "v2"]
    assert read_pointer(top).number == 3


@pytest.mark.parametrize("returns_to", [2, 0, -1, "1", 1.5], ids=str)
def test_a_pointer_that_returns_to_itself_or_nowhere_is_damaged(
    top: ShardStore, root: IndexRoot, returns_to: object
) -> None:
    fields = dump_digested({"index_id": "v2", "returns_to": returns_to})
    rewrite(top, "current-2.json", fields)
    with pytest.raises(DamagedFile, match="where a smaller number is expected"):
        read_pointer(top)


def test_a_pointer_that_a_rollback_needs_and_somebody_removed_is_named(
    top: ShardStore, root: IndexRoot
) -> None:
    switch_to(top, "v2")
    top.remove("current-1.json")
    with pytest.raises(IndexRefused, match=r"current-1\.json named the index to return to, and is gone"):
        name_former(top)


def test_an_empty_root_names_no_index(root: IndexRoot) -> None:
    assert read_history(open_root(root)) == []
    with pytest.raises(IndexMissing):
        read_pointer(open_root(root))


def test_an_index_keeps_the_model_that_it_was_begun_with(tmp_path: Path) -> None:
    store = create_index(tmp_path).store
    assert read_model(store) is None
    record_model(store, RecordedModel("ViT-B-32", "laion2b_s34b_b79k"))
    record_model(store, RecordedModel("another"))
    assert read_model(store) == RecordedModel("ViT-B-32", "laion2b_s34b_b79k")


def test_a_model_in_a_directory_is_recorded_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(tmp_path)
    recorded = RecordedModel.of(EncoderSettings(model="./tuned", threads=3))
    assert recorded.model == str(tmp_path / "tuned")
    assert recorded.is_here
    assert recorded.pretrained is None
    assert not RecordedModel(str(tmp_path / "elsewhere")).is_here
    assert recorded.applied_to(EncoderSettings(threads=2)).threads == 2


@pytest.mark.parametrize("data", [b"", b"{}", dump_digested({"model": 7})], ids=["empty", "plain", "number"])
def test_an_unreadable_record_of_the_model_is_none(tmp_path: Path, data: bytes) -> None:
    index = create_index(tmp_path)
    (index.path / "model.json").write_bytes(data)
    assert read_model(index.store) is None
