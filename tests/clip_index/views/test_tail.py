"""Tails answer what their segments answer one by one, and reloads share what stays."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from clip_index.content import EncodedContent, Modality
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import AnyOf, InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.searching.sources import Sources
from clip_index.segments.segment import Segment
from clip_index.vectors.flat_vectors import FlatVectors
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.queries import Queries
from clip_index.vectors.vector_file import VectorFile, write_fastest
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardSnapshot, ShardView
from clip_index.views.tail import Tail, build_tails
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import DIMENSION, add, content, create_index, removal, take_over, unit_vectors

FILTERS = [
    None,
    RowFilter(must=(AnyOf("source", ("even",)),)),
    RowFilter(must=(InRange("metadata.n", lt=5.0),)),
    RowFilter(must=(AnyOf("source", ("nowhere",)),)),
]
Placed: TypeAlias = tuple[int, tuple[float, int]]
"""A segment's place, what share of its rows is dead, and a seed for which."""

EMPTY = ShardSnapshot(1, 0, 0, None, {})
AXES = np.eye(DIMENSION, dtype=np.float32)
PAIRS = MergeSettings(merge_factor=2, max_dead_share=1.0)


def drawn(name: str, number: int, rng: np.random.Generator) -> EncodedContent:
    """An image or a text of some windows, often identical or equally near to others."""
    modality: Modality = "text" if rng.random() < 0.4 else "image"
    num_windows = int(rng.integers(1, 5)) if modality == "text" else 1
    pool = [AXES, unit_vectors(1, 4), unit_vectors(int(rng.integers(1 << 30)), 8)][int(rng.integers(3))]
    return content(
        name,
        modality=modality,
        embeddings=pool[rng.integers(len(pool), size=num_windows)],
        source="even" if number % 2 == 0 else "odd",
        metadata={"n": float(number)},
    )


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Segment]:
    root: Path = tmp_path_factory.mktemp("tail")
    writer = take_over(create_index(root))
    rng = np.random.default_rng(3)
    for number, num_rows in enumerate((1, 40, 7, 2, 25, 90)):
        items = [drawn(f"{number}-{row}", row, rng) for row in range(num_rows)]
        add(writer, [lambda o, item=item: replace(item, offset=o) for item in items])  # type: ignore[misc]
        writer.commit()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return [view.segment for view in reader.searcher.shard_views[0].segments]


def answers(searcher: Searcher, queries: np.ndarray, **ask: Any) -> list[list[tuple[Any, ...]]]:
    return [
        [(hit.content_id, hit.score, hit.location.view, hit.location.row) for hit in hits]
        for hits in searcher.search(queries, **ask)
    ]


@st.composite
def layouts(draw: st.DrawFn) -> list[Placed]:
    """Some segments in some order, with some rows dead."""
    places = draw(st.lists(st.integers(0, 5), min_size=2, max_size=6, unique=True))
    return [
        (place, (draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])), draw(st.integers(0, 99)))) for place in places
    ]


def views_of(segments: Sequence[Segment], layout: list[Placed]) -> tuple[SegmentView, ...]:
    views = []
    for place, (dead_share, seed) in layout:
        is_dead = np.random.default_rng(seed).random(segments[place].num_rows) < dead_share
        views.append(SegmentView(segments[place], BitMap(np.flatnonzero(is_dead).tolist())))
    return tuple(views)


@settings(max_examples=300)
@given(
    layout=layouts(),
    max_nodes=st.sampled_from([20, 60, 1000]),
    num_before=st.integers(0, 6),
    bounds=st.sampled_from([(1, 1), (15, 1), (15, 5), (40, 30), (1000, 64)]),
    k=st.sampled_from([1, 2, 3, 10, 50, 500]),
    modality=st.sampled_from(["image", "text"]),
    row_filter=st.sampled_from(FILTERS),
    queries=st.sampled_from([AXES[:1], AXES[:3] + AXES[1:4], unit_vectors(1, 4), unit_vectors(77, 3)]),
)
def test_a_tail_answers_what_its_segments_answer_one_by_one(
    segments: list[Segment],
    layout: list[Placed],
    max_nodes: int,
    num_before: int,
    bounds: tuple[int, int],
    k: int,
    modality: Modality,
    row_filter: RowFilter | None,
    queries: np.ndarray,
) -> None:
    """Whether they are joined at once, or some of them after the others."""
    views = views_of(segments, layout)
    before = build_tails(views[:num_before], {}, max_nodes, *bounds)
    tails = build_tails(views, before, max_nodes, *bounds)
    joined = Searcher([ShardView("shard", EMPTY, views, tails)], DIMENSION)
    apart = Searcher([ShardView("shard", EMPTY, views)], DIMENSION)
    ask = {"k": k, "modality": modality, "row_filter": row_filter}
    assert answers(joined, queries, **ask) == answers(apart, queries, **ask)


@settings(max_examples=100)
@given(
    place=st.integers(0, 5),
    deaths=st.lists(
        st.tuples(st.sets(st.integers(0, 89), max_size=12), st.sampled_from(["image", "text", None])),
        min_size=2,
        max_size=6,
    ),
)
def test_a_view_that_follows_deaths_shows_what_a_new_one_shows(
    segments: list[Segment], place: int, deaths: list[tuple[set[int], Modality | None]]
) -> None:
    """Whether or not it was asked between two deaths, and for which modality."""
    segment, dead = segments[place], BitMap()
    view = SegmentView(segment, dead)
    for died, asked in deaths:
        dead = dead | BitMap([row for row in died if row < segment.num_rows])
        view, new = SegmentView(segment, dead, view), SegmentView(segment, dead)
        assert view.num_live == new.num_live
        assert view.eligible_rows(None).tolist() == new.eligible_rows(None).tolist()
        if asked is not None:
            [found], [expected] = (one.search(Queries(AXES[:1]), 500, asked) for one in (view, new))
            assert found.rows.tolist() == expected.rows.tolist()


def test_a_view_can_go_back_to_fewer_dead_rows(segments: list[Segment]) -> None:
    later = SegmentView(segments[1], BitMap([1, 2, 3]))
    later.search(Queries(AXES[:1]), 5, "image")
    former = SegmentView(segments[1], BitMap([2]), later)
    assert np.flatnonzero(~former.eligible_rows(None)).tolist() == [2]
    assert sum(former.num_live.values()) == segments[1].num_rows - 1


@pytest.mark.parametrize("order", [(5, 4, 1), (4, 5, 1, 2), (1, 4, 5)], ids=str)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_among_equal_scores_of_several_segments_content_ids_decide(
    segments: list[Segment], order: tuple[int, ...], k: int
) -> None:
    views = views_of(segments, [(place, (0.0, 0)) for place in order])
    joined = Searcher([ShardView("shard", EMPTY, views, build_tails(views, {}))], DIMENSION)
    apart = Searcher([ShardView("shard", EMPTY, views)], DIMENSION)
    for query in (*AXES, *unit_vectors(1, 4)):
        found = answers(joined, query[None], k=k, modality="image")
        assert found == answers(apart, query[None], k=k, modality="image")


def test_a_tail_of_several_windows_still_gives_k_texts(segments: list[Segment]) -> None:
    views = views_of(segments, [(place, (0.3, place)) for place in range(6)])
    tail = build_tails(views, {})["text"][0]
    num_live = sum(view.num_live["text"] for view in views)
    [found] = tail.search(Queries(unit_vectors(5)), num_live, "text")
    assert len(set(found.rows.tolist())) == len(found.rows) == num_live


def test_threads_share_a_tail(segments: list[Segment]) -> None:
    views = views_of(segments, [(place, (0.3, place)) for place in range(6)])
    searcher = Searcher([ShardView("shard", EMPTY, views, build_tails(views, {}))], DIMENSION)
    queries = unit_vectors(9, 64)
    expected = answers(searcher, queries, k=5, modality="image")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda q: answers(searcher, q[None], k=5, modality="image")[0], queries))
    assert found == expected


def test_the_smallest_segments_are_joined_up_to_the_bound(segments: list[Segment]) -> None:
    views = views_of(segments, [(place, (0.0, 0)) for place in range(6)])
    sizes = {place: views[place].segment.vector_files["image"].num_nodes for place in range(6)
             if "image" in views[place].segment.vector_files}  # fmt: skip
    *smaller, largest = sorted(sizes, key=lambda place: sizes[place])
    tail = build_tails(views, {}, sum(sizes.values()) - 1)["image"][0]
    assert tail.views == tuple(views[place] for place in sorted(smaller))
    assert views[largest] not in tail.views


def test_one_small_segment_alone_is_no_tail(segments: list[Segment]) -> None:
    views = views_of(segments, [(5, (0.0, 0))])
    assert build_tails(views, {}) == {}


AS_MERGED = WriterSettings(write_sealed=write_fastest)
"""Segments of 4,000 rows and more have lists as soon as they are committed."""


def commit_rows(writer: ShardWriter, seed: int, num_rows: int) -> None:
    items = [
        content(f"{seed}-{n}", writer.next_offset + n, embeddings=row[None])
        for n, row in enumerate(unit_vectors(seed, num_rows))
    ]
    add(writer, items)
    writer.commit()


def test_lists_stay_beside_the_tail(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    for seed, num_rows in enumerate((10_050, 10, 10)):
        commit_rows(writer, seed, num_rows)
    shard = view_of(IndexReader(tmp_path))
    assert shard.tails["image"][0].views == shard.segments[1:]
    assert shard.sources("image") == [shard.tails["image"][0], shard.segments[0]]


def test_a_tail_has_lists_around_the_centroids_of_the_largest_segment(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    commit_rows(writer, 2, 600)
    commit_rows(writer, 3, 700)
    assert isinstance(tail_of(reader).joined.vectors, FlatVectors), "no segment has lists yet"
    for seed, num_rows in enumerate((4_100, 5_000)):
        commit_rows(writer, seed, num_rows)
    shard = view_of(reader)
    guide = shard.segments[3].segment.vector_files["image"].lists
    [listed] = shard.tails["image"]
    assert (listed.joined.guide, listed.joined.num_nodes) == (guide, 1300)
    for seed, num_rows in ((2, 600), (3, 700)):
        assert best_of(listed, unit_vectors(seed, num_rows)[-5:]) == [
            f"{seed}-{n}" for n in range(num_rows - 5, num_rows)
        ]


def test_beside_lists_a_single_small_segment_lies_in_lists_too(tmp_path: Path) -> None:
    """So every search scans it together with everything else, and not in a call of its own."""
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    commit_rows(writer, 0, 4_100)
    commit_rows(writer, 1, 3)
    reader = IndexReader(tmp_path)
    [tail] = view_of(reader).tails["image"]
    assert tail.lists("image") is not None
    assert best_of(tail, unit_vectors(1, 3)) == [f"1-{n}" for n in range(3)]
    assert reader.searcher is not None
    sources = Sources(reader.searcher.shard_views, "image")
    assert (len(sources.stacks), sources.alone) == (1, [])


def open_merging(root: Path) -> tuple[ShardWriter, InlineLanes, IndexReader]:
    """Open a new index whose writer merges three segments; the merge ends when the lanes release it."""
    lanes = InlineLanes()
    settings = WriterSettings(write_sealed=write_fastest, merge=MergeSettings(merge_factor=3))
    writer = take_over(create_index(root), lanes=lanes, settings=settings)
    return writer, lanes, IndexReader(root, clock=iter(range(0, 10**9, 1000)).__next__)


def test_the_lists_of_merged_nodes_are_not_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, lanes, reader = open_merging(tmp_path)
    for seed, num_rows in enumerate((4_100, 30, 30, 30)):
        commit_rows(writer, seed, num_rows)
    view_of(reader)
    writer.maintain()
    lanes.release(is_released=True)
    assigned: list[int] = []
    original = InvertedLists.assign
    monkeypatch.setattr(
        InvertedLists, "assign", lambda lists, nodes: assigned.append(len(nodes)) or original(lists, nodes)
    )
    writer.maintain()
    commit_rows(writer, 4, 5)
    [tail] = view_of(reader).tails["image"]
    assert assigned == [5]
    assert {file.num_nodes for file in tail.joined.files} == {90, 5}
    for file in tail.joined.files:
        guide = tail.joined.guide
        assert guide is not None
        assert file.lists_around(guide).tolist() == original(guide, file.read_nodes()).tolist()


def test_nodes_are_found_where_they_were_put_even_if_their_lists_would_be_others_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was asked for other lists meanwhile may decide otherwise for a node between two of them."""
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    for seed, num_rows in enumerate((4_100, 30)):
        commit_rows(writer, seed, num_rows)
    [former] = view_of(reader).tails["image"]
    for file in former.joined.files:
        file._around = None
    original = InvertedLists.assign
    monkeypatch.setattr(InvertedLists, "assign", lambda lists, nodes: original(lists, nodes)[::-1].copy())
    commit_rows(writer, 2, 5)
    [tail] = view_of(reader).tails["image"]
    stored = np.concatenate([file.read_nodes() for file in tail.joined.files])
    assert (tail.joined.vectors.embeddings_of(np.arange(35)) == stored).all()


def best_of(tail: Tail, queries: np.ndarray) -> list[str]:
    found = tail.search(Queries(queries), 1, "image")
    return [view.segment.content_id(row) for view, row in (tail.locate(int(f.rows[0])) for f in found)]


def test_what_is_committed_after_a_long_tail_grows_beside_it(tmp_path: Path) -> None:
    """So a commit copies the growing block alone, and what the settled one remembers of filters is kept."""
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    for seed, num_rows in enumerate((4_100, 600, 700)):
        commit_rows(writer, seed, num_rows)
    [settled] = view_of(reader).tails["image"]
    for seed, num_rows in ((3, 7), (4, 8), (5, 480)):
        commit_rows(writer, seed, num_rows)
        kept, growing = view_of(reader).tails["image"]
        assert kept is settled
    assert growing.joined.num_nodes == 495
    assert best_of(growing, unit_vectors(4, 8)) == [f"4-{n}" for n in range(8)]


def test_larger_files_are_settled_together_and_small_ones_wait_for_their_merge(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    for seed, num_rows in enumerate((4_100, 600, 30, 300)):
        commit_rows(writer, seed, num_rows)
        view_of(reader)
    commit_rows(writer, 4, 200)
    settled, growing = view_of(reader).tails["image"]
    assert [file.num_nodes for file in settled.joined.files] == [600, 300, 200]
    assert [file.num_nodes for file in growing.joined.files] == [30]
    assert best_of(settled, unit_vectors(3, 300)) == [f"3-{n}" for n in range(300)]


def test_a_merge_of_the_newest_segments_leaves_the_settled_block_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the manifest names its result before the other segments."""
    writer, lanes, reader = open_merging(tmp_path)
    for seed, num_rows in enumerate((4_100, 600, 30, 30, 30)):
        commit_rows(writer, seed, num_rows)
    settled, _ = view_of(reader).tails["image"]
    writer.maintain()
    lanes.release(is_released=True)
    writer.maintain()
    kept, growing = view_of(reader).tails["image"]
    assert kept is settled
    assert [file.num_nodes for file in growing.joined.files] == [90]
    assert best_of(growing, unit_vectors(4, 30)) == [f"4-{n}" for n in range(30)]


def test_a_death_in_a_settled_block_copies_no_vectors(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    for seed, num_rows in enumerate((4_100, 600, 700)):
        commit_rows(writer, seed, num_rows)
    [settled] = view_of(reader).tails["image"]
    add(writer, [removal("1-3", writer.next_offset)])
    writer.commit()
    [tail] = view_of(reader).tails["image"]
    assert tail is not settled
    assert tail.joined is settled.joined
    [third] = unit_vectors(1, 600)[3:4]
    assert best_of(settled, third[None]) == ["1-3"]
    assert best_of(tail, third[None]) != ["1-3"]


def test_a_larger_segment_begins_new_lists_of_the_tail(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    for seed, num_rows in enumerate((4_100, 700, 700)):
        commit_rows(writer, seed, num_rows)
    former, query = tail_of(reader), Queries(unit_vectors(1))
    before = former.search(query, 9, "image")[0].rows.tolist()
    commit_rows(writer, 3, 4_500)
    newest = view_of(reader)
    assert newest.tails["image"][0].joined.guide is newest.segments[3].segment.vector_files["image"].lists
    assert former.search(query, 9, "image")[0].rows.tolist() == before


def test_centroids_are_ranked_once_for_all_lists_around_them(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=AS_MERGED)
    for seed, num_rows in enumerate((4_100, 700, 700)):
        commit_rows(writer, seed, num_rows)
    shard = view_of(IndexReader(tmp_path))
    queries = Queries(unit_vectors(1, 3))
    for source in shard.sources("image"):
        source.search(queries, 2, "image")
    assert len(queries._ranked) == 1


def view_of(reader: IndexReader) -> ShardView:
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher.shard_views[0]


def commit(writer: ShardWriter, *names: str) -> None:
    add(writer, [lambda o, name=name: content(name, o) for name in names])  # type: ignore[misc]
    writer.commit()


@pytest.fixture
def lanes() -> InlineLanes:
    return InlineLanes()


@pytest.fixture
def writer(tmp_path: Path, lanes: InlineLanes) -> ShardWriter:
    return take_over(create_index(tmp_path), lanes=lanes, settings=WriterSettings(merge=PAIRS))


@pytest.fixture
def reader(tmp_path: Path) -> IndexReader:
    return IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)


def tail_of(reader: IndexReader) -> Tail:
    return view_of(reader).tails["image"][0]


def nodes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many nodes are read of each file that is joined from now on."""
    counts: list[int] = []
    original = VectorFile.read_nodes
    monkeypatch.setattr(VectorFile, "read_nodes", lambda f: counts.append(f.num_nodes) or original(f))  # type: ignore[func-returns-value]
    return counts


def test_an_appended_segment_alone_is_read_and_the_former_tail_stays(
    writer: ShardWriter, reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(writer, "a", "b", "c")
    commit(writer, "d", "e")
    former = tail_of(reader)
    query = Queries(unit_vectors(1))
    [before] = former.search(query, 9, "image")
    counts = nodes_read(monkeypatch)
    commit(writer, "f")
    newest = tail_of(reader)
    assert counts == [1]
    [after] = former.search(query, 9, "image")
    assert (after.rows.tolist(), after.scores.tolist()) == (before.rows.tolist(), before.scores.tolist())
    assert len(newest.search(query, 9, "image")[0].rows) == 6


def test_vectors_are_shared_when_only_rows_died(writer: ShardWriter, reader: IndexReader) -> None:
    commit(writer, "a", "b", "c")
    commit(writer, "d", "e")
    former = tail_of(reader)
    add(writer, [lambda o: removal("b", o)])
    writer.commit()
    newest = tail_of(reader)
    assert newest.joined is former.joined
    assert len(newest.search(Queries(unit_vectors(1)), 9, "image")[0].rows) == 4
    assert len(former.search(Queries(unit_vectors(1)), 9, "image")[0].rows) == 5


def test_a_merge_begins_a_new_tail(writer: ShardWriter, reader: IndexReader, lanes: InlineLanes) -> None:
    for name in "abc":
        commit(writer, name)
    former = tail_of(reader)
    writer.maintain()
    lanes.release(is_released=True)
    writer.maintain()
    commit(writer, "d")
    newest = tail_of(reader)
    assert newest.joined.files[: len(former.joined.files)] != former.joined.files
    [found] = newest.search(Queries(unit_vectors(1)), 9, "image")
    names = {view.segment.content_id(row) for view, row in map(newest.locate, found.rows.tolist())}
    assert names == {"a", "b", "c", "d"}
