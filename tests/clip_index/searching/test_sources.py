"""Stacks answer what their segments and tails answer one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from clip_index.content import Modality
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import AnyOf, InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.searching.sources import Sources
from clip_index.searching.stacks import Stack
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.list_ranking import ListRanking
from clip_index.vectors.queries import Queries
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardSnapshot, ShardView
from clip_index.views.tail import Tail
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import DIMENSION, add, content, create_index, take_over, unit_vectors

HALF, NUM_TAIL = 3_200, 580
PAIRS = MergeSettings(merge_factor=2, max_dead_share=1.0)
FEW = unit_vectors(77, 40)
"""Embeddings that many rows of all shards have."""

QUERIES = np.concatenate([FEW[:8], unit_vectors(5, 40)])


class Timed:
    """Is told of the search of each shard, so that nothing is stacked."""

    def __init__(self) -> None:
        self.shards: list[str] = []

    @contextmanager
    def searching(self, shard: str, _modality: Modality, /) -> Iterator[None]:
        self.shards.append(shard)
        yield


def embeddings(seed: int, num_rows: int) -> np.ndarray:
    """A third of the rows have one of a few embeddings."""
    rng = np.random.default_rng(seed)
    rows = unit_vectors(seed, num_rows)
    are_repeated = rng.random(num_rows) < 1 / 3
    rows[are_repeated] = FEW[rng.integers(len(FEW), size=int(are_repeated.sum()))]
    return rows


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Two shards, each with a merged segment and a tail that has lists: all around one set of centroids."""
    root: Path = tmp_path_factory.mktemp("stacked")
    index, lanes = create_index(root, num_partitions=2), InlineLanes()
    writers = [take_over(index, p, lanes=lanes, settings=WriterSettings(merge=PAIRS)) for p in range(2)]

    def commit(partition: int, seed: int, num_rows: int) -> None:
        rows = embeddings(seed, num_rows)
        ids = np.random.default_rng(seed).permutation(num_rows)
        add(
            writers[partition],
            [
                content(f"{n:04}-{seed}", embeddings=row[None], modality="image", metadata={"n": float(n)})
                for n, row in zip(ids, rows, strict=True)
            ],
        )
        writers[partition].commit()

    for partition in range(2):
        commit(partition, 10 + partition, HALF)
        commit(partition, 20 + partition, HALF)
        lanes.release(is_released=True)
        for _ in range(6):
            writers[partition].maintain()
    lanes.release(is_released=False)
    for seed in (30, 40, 50):
        for partition in range(2):
            commit(partition, seed + partition, NUM_TAIL)
    return opened(root)


def below(number: float) -> RowFilter:
    return RowFilter(must=(InRange("metadata.n", lt=number),))


def opened(root: Path) -> Searcher:
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def answers(searcher: Searcher, queries: np.ndarray, **ask: Any) -> list[list[tuple[Any, ...]]]:
    return [
        [(hit.score, hit.content_id, hit.location) for hit in hits]
        for hits in searcher.search(queries, modality="image", **ask)
    ]


def test_lists_of_all_segments_and_tails_are_one_stack(searcher: Searcher) -> None:
    sources = Sources(searcher.shard_views, "image")
    assert [isinstance(one.rows.lists("image"), InvertedLists) for one in sources.all] == [True] * 4
    assert len(sources.stacks) == 1
    assert sources.alone == []


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(QUERIES) - 1), min_size=1, max_size=4),
    k=st.sampled_from([1, 2, 10, 90, 700, 20_000]),
    min_score=st.sampled_from([None, 0.5, 1.0]),
    depth=st.sampled_from([None, 10_000]),
)
def test_a_stack_finds_what_each_segment_finds_alone(
    searcher: Searcher, chosen: list[int], k: int, min_score: float | None, depth: int | None
) -> None:
    queries, observer = QUERIES[chosen], Timed()
    ask = {"k": k, "min_score": min_score, "depth": depth}
    stacked = answers(searcher, queries, **ask)
    assert stacked == answers(searcher.observed_by(observer), queries, **ask)
    assert {"content-uploads-0", "content-uploads-1"} == set(observer.shards)
    assert stacked == [answers(searcher, query[None], **ask)[0] for query in queries]


def test_equal_scores_of_a_stack_are_ordered_by_content_id_across_shards(searcher: Searcher) -> None:
    [whole] = answers(searcher, FEW[:1], k=200)
    ranked = [(-score, content_id) for score, content_id, _ in whole]
    assert ranked == sorted(ranked)
    assert len({location.shard for score, _, location in whole if score == whole[0][0]}) == 2
    for k in range(1, 60):
        assert answers(searcher, FEW[:1], k=k) == [whole[:k]]


def with_a_third_dead(searcher: Searcher) -> tuple[Searcher, SegmentView]:
    """Let every third row of the second shard's merged segment die; return that segment's new view too."""
    first, second = searcher.shard_views
    [merged, *others] = second.segments
    view = SegmentView(merged.segment, BitMap(range(0, merged.segment.num_rows, 3)))
    shard = ShardView(second.name, ShardSnapshot(1, 0, 0, None, {}), (view, *others), second.tails)
    return Searcher([first, shard], DIMENSION), view


def test_segments_with_dead_rows_are_searched_beside_the_stack(searcher: Searcher) -> None:
    part_dead, view = with_a_third_dead(searcher)
    sources = Sources(part_dead.shard_views, "image")
    assert [source.rows for source in sources.alone] == [view]
    found = answers(part_dead, QUERIES, k=20)
    assert found == answers(part_dead.observed_by(Timed()), QUERIES, k=20)
    assert not any(loc.view is view and loc.row % 3 == 0 for hits in found for _, _, loc in hits)


def with_dead(searcher: Searcher, *, nearest_to: np.ndarray | None, share: float) -> Searcher:
    """Let a share of the rows of each merged segment die: those nearest to a query, or any."""
    shards = []
    for number, shard in enumerate(searcher.shard_views):
        [merged, *others] = shard.segments
        file = merged.segment.vector_files["image"]
        scores = np.random.default_rng(number).random(merged.segment.num_rows)
        if nearest_to is not None:
            nodes = [file.node_rows.nodes_of(row)[0] for row in range(merged.segment.num_rows)]
            scores = file.read_nodes()[nodes].astype(np.float32) @ nearest_to
        dead = BitMap(np.flatnonzero(scores >= np.quantile(scores, 1 - share)).tolist())
        views = (SegmentView(merged.segment, dead), *others)
        shards.append(ShardView(shard.name, ShardSnapshot(1, 0, 0, None, {}), views, shard.tails))
    return Searcher(shards, DIMENSION)


@pytest.fixture(scope="module", params=[0.01, 0.4, 0.7])
def part_dead(searcher: Searcher, request: pytest.FixtureRequest) -> dict[bool, Searcher]:
    """By whether those are dead that lie nearest to the first query."""
    return {
        is_near: with_dead(searcher, nearest_to=QUERIES[0] if is_near else None, share=request.param)
        for is_near in (False, True)
    }


@settings(max_examples=15, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(QUERIES) - 1), min_size=1, max_size=4),
    k=st.sampled_from([1, 10, 90, 700, 20_000]),
    depth=st.sampled_from([None, 20_000]),
    is_near=st.booleans(),
)
def test_the_same_lists_are_near_in_every_search_of_segments_with_dead_rows(
    part_dead: dict[bool, Searcher], chosen: list[int], k: int, depth: int | None, *, is_near: bool
) -> None:
    searcher, queries, ask = part_dead[is_near], QUERIES[chosen], {"k": k, "depth": depth}
    together = answers(searcher, queries, **ask)
    assert together == answers(searcher.observed_by(Timed()), queries, **ask)
    assert together == [answers(searcher, query[None], **ask)[0] for query in queries]
    if k <= 90:
        walks = answers(searcher, queries, k=20_000, depth=20_000)
        assert [walk[:k] for walk in walks] == together
        num_live = sum(view.num_live["image"] for shard in searcher.shard_views for view in shard.segments)
        assert {len({hit[1] for hit in walk}) for walk in walks} == {num_live}


def test_lists_of_segments_with_dead_rows_are_ranked_together(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = []
    rank = ListRanking.rank

    def spy(self: ListRanking, queries: Queries, selection: Any, *args: Any, **options: Any) -> Any:
        ranked.append(self._members.num_nodes)
        return rank(self, queries, selection, *args, **options)

    monkeypatch.setattr(ListRanking, "rank", spy)
    dead = with_dead(searcher, nearest_to=None, share=0.01)
    merged = [shard.segments[0].segment.vector_files["image"].num_nodes for shard in searcher.shard_views]
    answers(dead, QUERIES[:1], k=10)
    assert ranked == [sum(merged)]  # and then they are scanned in one call


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(QUERIES) - 1), min_size=1, max_size=4),
    num_kept=st.sampled_from([0, 1, 3, 40, 150, 400, 1_500]),
    k=st.sampled_from([1, 2, 10, 90, 700]),
    depth=st.sampled_from([None, 10_000]),
)
def test_the_few_rows_that_a_filter_leaves_are_ranked_as_each_segment_ranks_them_alone(
    searcher: Searcher, chosen: list[int], num_kept: int, k: int, depth: int | None
) -> None:
    queries, ask = QUERIES[chosen], {"k": k, "depth": depth, "row_filter": below(num_kept)}
    together = answers(searcher, queries, **ask)
    assert together == answers(searcher.observed_by(Timed()), queries, **ask)
    assert together == [answers(searcher, query[None], **ask)[0] for query in queries]


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(QUERIES) - 1), min_size=1, max_size=4),
    num_kept=st.sampled_from([1_400, 1_600, 2_400, 3_100, 10_000]),
    k=st.sampled_from([1, 2, 10, 90, 700, 20_000]),
    depth=st.sampled_from([None, 20_000]),
    has_dead=st.booleans(),
)
def test_what_a_filter_leaves_most_of_is_ranked_as_each_segment_ranks_it_alone(
    searcher: Searcher, chosen: list[int], num_kept: int, k: int, depth: int | None, *, has_dead: bool
) -> None:
    some = with_a_third_dead(searcher)[0] if has_dead else searcher
    queries, ask = QUERIES[chosen], {"k": k, "depth": depth, "row_filter": below(num_kept)}
    together = answers(some, queries, **ask)
    assert together == answers(some.observed_by(Timed()), queries, **ask)
    assert together == [answers(some, query[None], **ask)[0] for query in queries]


def test_what_a_filter_leaves_most_of_is_searched_in_one_call(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = []
    search = Stack.search_thinned

    def spy(self: Stack, *args: Any) -> Any:
        stacks.append(self)
        return search(self, *args)

    monkeypatch.setattr(Stack, "search_thinned", spy)
    [plain] = Sources(searcher.shard_views, "image").stacks
    answers(searcher, QUERIES[-1:], k=10, row_filter=below(2_400))
    [stack] = stacks
    assert stack.sources == plain.sources
    some, _ = with_a_third_dead(searcher)
    answers(some, QUERIES[-1:], k=10, row_filter=below(2_400))
    assert len(stacks[1].sources) == len(plain.sources)  # those with dead rows among them


def test_a_later_searcher_keeps_the_stack_of_all_for_filters(searcher: Searcher) -> None:
    some, _ = with_a_third_dead(searcher)
    answers(some, QUERIES[-1:], k=10, row_filter=below(2_400))
    later = Searcher(some.shard_views, DIMENSION)
    later.prepare_like(some)
    former, own = (one._sources_of("image")._whole for one in (some, later))
    assert list(own) == list(former)
    assert len(own) == 1
    assert answers(later, QUERIES, k=10, row_filter=below(2_400)) == answers(
        some, QUERIES, k=10, row_filter=below(2_400)
    )


def test_a_later_searcher_whose_segments_cannot_be_stacked_any_more_is_prepared(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as after a merge with texts of several windows."""
    former = Searcher(searcher.shard_views, DIMENSION)
    expected = answers(former, QUERIES, k=10, row_filter=below(2_400))
    assert former._sources_of("image")._whole
    later = Searcher(searcher.shard_views, DIMENSION)
    with monkeypatch.context() as patch:
        for kind in (SegmentView, Tail):
            patch.setattr(kind, "part_of_stack", lambda *_: None)
        later.prepare_like(former)
        assert not later._sources_of("image")._whole
        assert answers(later, QUERIES, k=10, row_filter=below(2_400)) == expected


def test_a_stack_that_another_thread_builds_while_a_later_searcher_is_prepared_does_no_harm(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = Searcher(searcher.shard_views, DIMENSION)
    answers(former, QUERIES, k=10, row_filter=below(2_400))
    known = former._sources_of("image")._whole
    whole_stack = Sources._whole_stack

    def meanwhile(self: Sources, key: int, *args: Any) -> Stack:
        known[-1] = known[key]
        return whole_stack(self, key, *args)

    monkeypatch.setattr(Sources, "_whole_stack", meanwhile)
    Searcher(searcher.shard_views, DIMENSION).prepare_like(former)
    assert -1 in known


def test_the_few_rows_of_all_segments_and_tails_are_scanned_in_one_call(searcher: Searcher) -> None:
    sources = Sources(searcher.shard_views, "image")
    [few], others = sources.split_few(Queries(QUERIES[:1]), below(40))
    assert others == []
    [found] = few.search(Queries(QUERIES[:1]), 10_000)
    assert len(found.rows) == 40 * 4 + 40 * 6  # rows of halves and tails
    assert sources.split_few(Queries(QUERIES[:1]), below(HALF)) == ([], sources.all)


def test_dead_rows_are_not_among_the_few(searcher: Searcher) -> None:
    merged = searcher.shard_views[1].segments[0]
    part_dead, _ = with_a_third_dead(searcher)
    ask = {"k": 400, "row_filter": below(40)}
    found = answers(part_dead, QUERIES, **ask)
    assert found == answers(part_dead.observed_by(Timed()), QUERIES, **ask)
    [all_alive] = answers(searcher, QUERIES[:1], **ask)
    alive = [hit for hit in all_alive if hit[2].view is not merged or hit[2].row % 3]
    assert [hit[:2] for hit in found[0]] == [hit[:2] for hit in alive]
    assert len(alive) < len(all_alive)


@pytest.mark.parametrize("has_codes", [True, False])
def test_a_single_segment_is_stacked_if_it_has_codes(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, *, has_codes: bool
) -> None:
    [view] = [shard.segments[0] for shard in searcher.shard_views[:1]]
    if not has_codes:
        monkeypatch.setattr(view.lists("image"), "scan_codes", None)
    alone = Sources([ShardView("one", ShardSnapshot(1, 0, 0, None, {}), (view,))], "image")
    assert len(alone.stacks) == int(has_codes)
    assert [source.rows for source in alone.alone] == ([] if has_codes else [view])


def test_texts_of_several_windows_are_not_stacked(tmp_path: Path) -> None:
    index, lanes = create_index(tmp_path, num_partitions=2), InlineLanes()
    for partition in range(2):
        writer = take_over(index, partition, lanes=lanes, settings=WriterSettings(merge=PAIRS))
        for half in range(2):
            rows = unit_vectors(90 + 2 * partition + half, 2 * HALF)
            add(
                writer,
                [
                    content(f"{partition}-{half}-{n}", embeddings=rows[2 * n : 2 * n + 2], modality="text")
                    for n in range(HALF)
                ],
            )
            writer.commit()
        lanes.release(is_released=True)
        for _ in range(6):
            writer.maintain()
        lanes.release(is_released=False)
    sources = Sources(opened(tmp_path).shard_views, "text")
    assert sources.has_rest
    assert sources.stacks == []
    assert len(sources.alone) == 2
    few, others = sources.split_few(Queries(QUERIES[:1]), RowFilter(must=(AnyOf("content_id", ("0-0-1",)),)))
    assert (few, others) == ([], sources.all)
