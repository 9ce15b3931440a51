"""An id that producers sent to two partitions is one content everywhere: the newest."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import Change
from clip_index.reading import doubled_ids
from clip_index.reading.doubled_ids import DoubledIds
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.segments.segment import Segment
from clip_index.storage.index_roots import IndexRoot
from clip_index.views.segment_view import SegmentView
from clip_index.writing.shard_writer import ShardWriter
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, removal, take_over, unit_vectors
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import find_rankings
from query_api.search.ranking.ranking_requests import MAX_DEPTH, RankingRequest

NEAR, FAR = unit_vectors(1), -unit_vectors(1)


def commit(writer: ShardWriter, changes: Sequence[Any]) -> None:
    add(writer, changes)
    writer.commit()


def upload(content_id: str, version: int | None = None, **changes: Any) -> Any:
    return lambda offset: content(content_id, offset, version=version, **changes)


@pytest.fixture
def writers(root: IndexRoot) -> list[ShardWriter]:
    index = create_index(root, num_partitions=3)
    return [take_over(index, partition) for partition in range(3)]


@pytest.fixture
def reader(root: IndexRoot, writers: list[ShardWriter]) -> IndexReader:
    return IndexReader(root)


def searcher_of(reader: IndexReader) -> Searcher:
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def found(searcher: Searcher, k: int = 100) -> list[tuple[str, str]]:
    [hits] = searcher.search(NEAR, k=k, modality="image")
    return [(hit.content_id, hit.location.shard[-1]) for hit in hits]


def walk(searcher: Searcher, page: int) -> list[str]:
    query, after, ids = QueryEmbedding(NEAR[0], frozenset(), None), None, list[str]()
    while True:
        ask = RankingRequest(query, "image", page, row_filter=None, after=after, depth=MAX_DEPTH)
        [selected] = find_rankings(searcher, [ask])
        ids += [hit.content_id for hit in selected.hits]
        if (after := selected.end) is None:
            return ids


def test_an_older_row_that_matches_better_is_not_found(
    reader: IndexReader, writers: list[ShardWriter]
) -> None:
    """Of few hits the newer row may be none, so that only the snapshot can tell which row is the older."""
    commit(writers[0], [upload("moved", 1, embeddings=NEAR)])
    commit(writers[1], [upload("moved", 2, embeddings=FAR), *(upload(f"{n}") for n in range(20))])
    searcher = searcher_of(reader)
    assert "moved" not in [content_id for content_id, _ in found(searcher, k=5)]
    assert found(searcher)[-1] == ("moved", "1")


def test_pages_have_no_doubles_and_no_gaps(reader: IndexReader, writers: list[ShardWriter]) -> None:
    """As after a producer has changed its partitioner, and has sent half of its catalogue again."""
    commit(writers[0], [upload(f"{n:02}", 1) for n in range(40)])
    commit(writers[1], [upload(f"{n:02}", 2) for n in range(0, 40, 2)])
    commit(writers[2], [upload(f"{n:02}", 3) for n in range(0, 40, 4)])
    searcher = searcher_of(reader)
    whole = [content_id for content_id, _ in found(searcher)]
    assert sorted(whole) == [f"{n:02}" for n in range(40)]
    for page in (1, 3, 7):
        assert walk(searcher, page) == whole


def test_a_doubled_id_counts_once_wherever_contents_are_listed(
    reader: IndexReader, writers: list[ShardWriter]
) -> None:
    commit(writers[0], [upload("moved", 1, source="old", owner_id="ann"), upload("other", source="old")])
    commit(writers[2], [upload("moved", 2, source="new", owner_id="ann")])
    searcher = searcher_of(reader)
    assert [shard.num_contents.get("image", 0) for shard in searcher.shards.values()] == [1, 0, 1]
    assert searcher.count_values("source", max_values=9).values == (("new", 1), ("old", 1))
    assert len(searcher.newest(k=9, modality="image")) == len(searcher.sample("image", 9)) == 2
    assert [location.shard[-1] for location in searcher.find_owner("ann")] == ["2"]
    location = searcher.find("moved")
    assert location is not None
    assert searcher.read(location).version == 2


def test_the_older_row_is_shown_again_when_the_newer_one_is_deleted(
    reader: IndexReader, writers: list[ShardWriter]
) -> None:
    commit(writers[0], [upload("moved", 1)])
    commit(writers[1], [upload("moved", 2)])
    assert found(searcher_of(reader)) == [("moved", "1")]
    commit(writers[1], [lambda offset: removal("moved", offset)])
    assert found(searcher_of(reader)) == [("moved", "0")]
    commit(writers[2], [lambda offset: removal("moved", offset)])
    assert found(searcher_of(reader)) == [("moved", "0")]


def test_of_equally_new_rows_the_first_shards_is_shown(
    reader: IndexReader, writers: list[ShardWriter]
) -> None:
    """The same records, copied into another partition."""
    for writer in (writers[2], writers[1]):
        commit(writer, [upload("copied", 1)])
    assert found(searcher_of(reader)) == [("copied", "1")]


def test_a_merge_changes_nothing(root: IndexRoot) -> None:
    index = create_index(root, num_partitions=2)
    lanes = InlineLanes()
    merging, writer = take_over(index, 0, lanes=lanes), take_over(index, 1)
    reader = IndexReader(root)
    commit(writer, [upload(f"{n}", 5) for n in range(0, 60, 3)])
    for first in range(0, 60, 4):
        commit(merging, [upload(f"{n}", 1 + n % 9) for n in range(first, first + 4)])
        merging.maintain()
        lanes.release(is_released=True)
        merging.maintain()
        searcher = searcher_of(reader)
        expected = [f"{n}" for n in range(first + 4) if n % 3 or n % 9 + 1 > 5]
        assert sorted(i for i, shard in found(searcher) if shard == "0") == sorted(expected)
    assert searcher.shards["content-uploads-0"].num_segments < 10


def test_an_index_of_a_former_generation_is_read_alike(
    reader: IndexReader, writers: list[ShardWriter]
) -> None:
    commit(writers[0], [upload("moved", 1), upload("other")])
    commit(writers[1], [upload("moved", 2)])
    former = searcher_of(reader)
    keys = {name: shard.key for name, shard in former.shards.items()}
    commit(writers[0], [upload("moved", 3)])
    assert dict(found(searcher_of(reader)))["moved"] == "0"
    assert found(reader.open_former(keys)) == found(former)
    assert dict(found(former))["moved"] == "1"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Segment, Segment]]:
    """The pairs of segments whose ids were compared one by one."""
    pairs: list[tuple[Segment, Segment]] = []
    compare = Segment.rows_in_common

    def note(segment: Segment, other: Segment) -> tuple[np.ndarray, np.ndarray]:
        pairs.append((segment, other))
        return compare(segment, other)

    monkeypatch.setattr(Segment, "rows_in_common", note)
    return pairs


def test_ids_are_compared_when_a_segment_is_new(
    reader: IndexReader, writers: list[ShardWriter], compared: list[tuple[Segment, Segment]]
) -> None:
    for number, writer in enumerate(writers):
        commit(writer, [upload("moved", number), upload(f"{number}")])
    searcher_of(reader)
    assert len(compared) == 3  # each pair once
    commit(writers[0], [upload("moved", 9)])
    assert dict(found(searcher_of(reader)))["moved"] == "0"
    assert len(compared) == 3 + 2


def test_shards_without_doubles_are_served_as_they_are_and_no_pair_of_small_segments_is_compared(
    reader: IndexReader, writers: list[ShardWriter], compared: list[tuple[Segment, Segment]]
) -> None:
    for number, writer in enumerate(writers):
        commit(writer, [upload(f"{number}")])
    first = searcher_of(reader)
    commit(writers[0], [upload("more")])
    second = searcher_of(reader)
    assert second.shard_views[1] is first.shard_views[1]
    assert DoubledIds().without_older(first.shard_views) == list(first.shard_views)
    assert compared == []


def test_large_segments_are_compared_with_small_ones(
    reader: IndexReader, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubled_ids, "_MAX_SMALL_ENTRIES", 2)
    commit(writers[0], [upload(f"{n}", 1) for n in range(6)])
    commit(writers[1], [upload(f"{n}", n % 2 * 2) for n in range(2, 5)])
    commit(writers[2], [upload("5", 2)])
    assert sorted(found(searcher_of(reader))) == [
        ("0", "0"),
        ("1", "0"),
        ("2", "0"),
        ("3", "1"),
        ("4", "0"),
        ("5", "2"),
    ]


def test_hashes_of_segments_that_are_gone_are_forgotten(
    reader: IndexReader, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubled_ids, "_MIN_HASHES", 8)
    known = reader._doubled._known
    for n in range(40):
        commit(writers[0], [upload("moved", n), upload("again", n)])
        commit(writers[1], [upload("moved", 100 - n)])
        assert sorted(found(searcher_of(reader))) == [("again", "0"), ("moved", "1")]
    gc.collect()
    assert [len(one._hashes) <= 8 + 2 for one in known] == [True] * 3


def test_segments_of_a_former_generation_are_gone_with_its_searcher(
    reader: IndexReader, writers: list[ShardWriter]
) -> None:
    commit(writers[0], [upload("a", 1)])
    generations = {name: shard.key for name, shard in searcher_of(reader).shards.items()}
    commit(writers[0], [lambda offset: removal("a", offset), upload("b", 1)])
    searcher_of(reader)
    former = reader.open_former(generations)
    opened = [ref(view) for shard in former._shards for view in shard.segments]
    assert opened
    del former
    gc.collect()
    served = {id(view) for shard in searcher_of(reader)._shards for view in shard.segments}
    assert {id(view()) for view in opened if view() is not None} <= served


def test_a_commit_looks_again_at_those_older_rows_alone_that_it_may_change(
    reader: IndexReader, writers: list[ShardWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_looks = 0
    look = SegmentView.are_eligible

    def count(view: SegmentView, *arguments: Any) -> np.ndarray:
        nonlocal num_looks
        num_looks += 1
        return look(view, *arguments)

    monkeypatch.setattr(SegmentView, "are_eligible", count)
    for n in range(4):
        commit(writers[0], [upload(f"moved-{n}", 1), upload(f"kept-{n}", 1)])
        commit(writers[1], [upload(f"moved-{n}", 2)])
    first = searcher_of(reader)
    assert num_looks == 4
    commit(writers[2], [upload("other")])
    assert searcher_of(reader).shard_views[0].segments == first.shard_views[0].segments
    assert num_looks == 4
    commit(writers[1], [lambda offset: removal("moved-1", offset), upload("kept-3", 2)])
    assert len(found(searcher_of(reader))) == 8 + 1
    assert num_looks == 4 + 2  # the segment of kept-3 has two newer ones; of that of moved-1 nothing is left


Step = tuple[int, int, int | None]
steps = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from([None, 1, 2, 3])), max_size=4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(commits=steps)
def test_after_any_log_an_id_is_one_hit_and_the_newest_live_one(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[Step]]
) -> None:
    """A step is a partition, an id and a version; None deletes. Every reload is compared with the fold."""
    root = tmp_path_factory.mktemp("doubled")
    index = create_index(root, num_partitions=3)
    writers = [take_over(index, partition) for partition in range(3)]
    reader = IndexReader(root)
    live: dict[tuple[int, str], int] = {}
    floors: dict[tuple[int, str], int] = {}
    for rows in commits:
        for partition in range(3):
            changes: list[Any] = []
            for of, number, version in rows:
                if of != partition:
                    continue
                key = (of, f"{number}")
                changes.append(change(key[1], version))
                apply(live, floors, key, version)
            if changes:
                commit(writers[partition], changes)
        newest: dict[str, tuple[int, int]] = {}
        for (partition, content_id), version in sorted(live.items()):
            if content_id not in newest or version > newest[content_id][0]:
                newest[content_id] = (version, partition)
        expected = sorted((i, str(partition)) for i, (_, partition) in newest.items())
        assert sorted(found(searcher_of(reader))) == expected


def change(content_id: str, version: int | None) -> Any:
    def build(offset: int) -> Change:
        if version is None:
            return removal(content_id, offset)
        return content(content_id, offset, version=version, occurred_at_ms=1)

    return build


def apply(
    live: dict[tuple[int, str], int],
    floors: dict[tuple[int, str], int],
    key: tuple[int, str],
    version: int | None,
) -> None:
    """The fold's law: a version applies above the floor, or at it while the content is live."""
    if version is None:
        live.pop(key, None)
    elif version > floors.get(key, -1) or (version == floors[key] and key in live):
        live[key] = floors[key] = version
