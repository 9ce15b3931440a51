"""`cliptide verify` proves that an index in OpenSearch equals its log, also while a consumer writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clip_index.content import Change, Delta
from cliptide.verify.verification import LogFold, ShardDifference, covered_ranges
from fakes.shards import content, removal
from opensearch_engine.index import OpenSearchIndex
from opensearch_engine.reader import OpenSearchReader
from opensearch_engine.shards import OpenSearchShards, OpenSearchShardWriter
from tests.cliptide.verify.test_verification import EQUAL, LOG


def written(index: OpenSearchIndex, changes: Sequence[Change]) -> OpenSearchShardWriter:
    writer = OpenSearchShards(index, "writer").become_owner(0, first_offset=0, own_epoch=None)
    writer.add(Delta(0, len(LOG), changes))
    writer.commit()
    return writer


def snapshot_reader(index: OpenSearchIndex) -> OpenSearchReader:
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    return reader


def compared(index: OpenSearchIndex, reader: OpenSearchReader) -> ShardDifference:
    assert reader.searcher is not None
    folded = LogFold(covered_ranges(reader.searcher, index.partition_of), {(0, 6)})
    for record in LOG:
        folded.add(record)
    [difference, other] = folded.compare(reader.searcher, index.partition_of)
    assert other == ShardDifference("content-uploads-1", num_equal=0)
    return difference


def test_an_index_that_equals_its_log_is_found_equal(index: OpenSearchIndex) -> None:
    written(index, EQUAL)
    assert compared(index, snapshot_reader(index)) == ShardDifference("content-uploads-0", num_equal=2)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        pytest.param([EQUAL[0], EQUAL[3]], {"missing": ("c",), "num_equal": 1}, id="a content is missing"),
        pytest.param(EQUAL[:4], {"surplus": ("b",), "num_equal": 2}, id="a delete was lost"),
        pytest.param([EQUAL[0], EQUAL[2]], {"outdated": ("a",), "num_equal": 1}, id="an update was lost"),
    ],
)
def test_every_difference_is_named(
    index: OpenSearchIndex, changes: list[Change], difference: dict[str, object]
) -> None:
    written(index, changes)
    expected = {"shard": "content-uploads-0", "missing": (), "surplus": (), "outdated": (), **difference}
    assert compared(index, snapshot_reader(index)) == ShardDifference(**expected)  # type: ignore[arg-type]


def test_what_a_consumer_writes_during_the_comparison_is_no_difference(index: OpenSearchIndex) -> None:
    writer = written(index, EQUAL)
    reader = snapshot_reader(index)
    later = [content("a", 7), removal("c", 8), content("new", 9)]
    writer.add(Delta(7, 10, later))
    writer.commit()
    difference = compared(index, reader)
    assert difference.is_equal
    assert difference.num_unproven == 3
