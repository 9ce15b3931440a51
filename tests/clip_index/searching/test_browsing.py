"""The newest contents, found without looking at every row, are those that a look at all would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import Modality
from clip_index.masks.time_blocks import TimeBlocks
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import AnyOf, RowFilter
from clip_index.searching.browsing import TimePosition
from clip_index.searching.searcher import Searcher
from fakes.shards import add, content, create_index, removal, take_over

BLOCK_ROWS = 4
NUM_ROWS = 150
FILTERS = [None, RowFilter(must=(AnyOf("source", ("rare",)),)), RowFilter(must=(AnyOf("source", ("none",)),))]
times = st.lists(st.integers(0, 30), max_size=70)


@given(times, st.none() | st.integers(-1, 31))
def test_no_row_comes_later_than_was_said_and_none_is_left_out(times: list[int], until: int | None) -> None:
    groups = list(TimeBlocks(np.array(times, np.int64), BLOCK_ROWS).latest(until))
    wanted = {row for row, time in enumerate(times) if until is None or time <= until}
    seen: set[int] = set()
    for rows, latest_behind in groups:
        assert seen.isdisjoint(rows.tolist())
        seen.update(rows.tolist())
        left = [times[row] for row in wanted - seen]
        assert max(left) <= latest_behind if left else True
        assert (latest_behind is None) == (rows is groups[-1][0])
    assert wanted <= seen <= set(range(len(times)))


def test_of_uploads_in_their_order_one_block_holds_the_latest() -> None:
    [rows, latest_behind], *_ = TimeBlocks(np.arange(100), BLOCK_ROWS).latest()
    assert rows.tolist() == [96, 97, 98, 99]
    assert latest_behind == 95


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Two shards of several segments, nearly in the order of time, with equal times and dead rows."""
    root: Path = tmp_path_factory.mktemp("browsing")
    index = create_index(root, num_partitions=2)
    random = np.random.default_rng(5)
    for partition in range(2):
        writer = take_over(index, partition)
        for number in range(0, NUM_ROWS, NUM_ROWS // 3):
            add(writer, [drawn(partition, row, random) for row in range(number, number + NUM_ROWS // 3)])
            writer.commit()
        add(writer, [removal(f"{partition}-{row}") for row in range(0, NUM_ROWS, 7)])
        writer.commit()
        writer.close()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    for shard in reader.searcher.shard_views:
        for view in shard.segments:
            use_small_blocks(view.segment)
    return reader.searcher


def drawn(partition: int, row: int, random: np.random.Generator) -> Any:
    """A content whose time is near its place in the log."""
    fields = {
        "modality": "text" if random.random() < 0.3 else "image",
        "source": "rare" if random.random() < 0.05 else "shop",
        "occurred_at_ms": row // 4 + int(random.integers(0, 6)),
    }
    return lambda offset: content(f"{partition}-{row}", offset, **fields)


def use_small_blocks(segment: Any) -> None:
    segment.time_blocks = TimeBlocks(segment.contents.column("occurred_at_ms").to_numpy(), BLOCK_ROWS)


def all_in_order(searcher: Searcher, modality: Modality, row_filter: RowFilter | None) -> list[str]:
    found = []
    for shard in searcher.shard_views:
        for view in shard.segments:
            for row in np.flatnonzero(view.eligible_rows(row_filter)).tolist():
                stored = view.segment.read(row)
                if stored.modality == modality:
                    position = (-stored.facts.occurred_at_ms, shard.name, -stored.offset)
                    found.append((position, stored.content_id))
    return [content_id for _, content_id in sorted(found)]


@settings(max_examples=60)
@given(
    k=st.sampled_from([1, 2, 7, 48, 500]),
    modality=st.sampled_from(["image", "text"]),
    row_filter=st.sampled_from(FILTERS),
)
def test_pages_of_the_newest_are_all_contents_in_order(
    searcher: Searcher, k: int, modality: Modality, row_filter: RowFilter | None
) -> None:
    found: list[str] = []
    after: TimePosition | None = None
    while page := searcher.newest(k=k, modality=modality, row_filter=row_filter, after=after):
        assert len(page) <= k
        found += [searcher.read(one.location).content_id for one in page]
        after = page[-1].position
    assert found == all_in_order(searcher, modality, row_filter)
