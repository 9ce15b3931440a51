"""Which sampled records a new searcher makes searchable."""

from __future__ import annotations

from clip_index.generations.traces import TracedRecord, write_traces
from clip_index.reading.index_reader import IndexReader
from query_api.serving.traced_records import newly_searchable
from tests.query_api.small_index import SmallIndex


def traced(*offsets: int) -> list[TracedRecord]:
    return [TracedRecord(offset, f"00-{offset + 1:032x}-{offset + 1:016x}-01", 7) for offset in offsets]


def offsets_of(reader: IndexReader, index: SmallIndex) -> list[tuple[str, int]]:
    """Commit one more text into the first shard; name the sampled records that become searchable."""
    former = reader.searcher
    index.commit(0, index.text("t-new", "a new text"))
    reader.reload()
    assert former is not None
    assert reader.searcher is not None
    return [(one.shard, one.offset) for one in newly_searchable(reader, former, reader.searcher)]


def test_a_new_searcher_serves_the_sampled_records_between_its_offset_and_the_former_one(
    small_index: SmallIndex,
) -> None:
    reader = small_index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    assert reader.index is not None
    name, other = sorted(reader.searcher.shards)
    start = reader.searcher.shards[name].next_offset
    stores = {store.name: store for store in map(reader.index.shard_store, (0, 1))}
    write_traces(stores[name], traced(start - 1, start, start + 1))
    write_traces(stores[other], traced(0, start, 99))
    assert offsets_of(reader, small_index) == [(name, start)]
    assert list(newly_searchable(reader, reader.searcher, reader.searcher)) == []


def test_without_a_file_of_traces_nothing_is_named(small_index: SmallIndex) -> None:
    reader = small_index.open_reader()
    reader.reload()
    assert offsets_of(reader, small_index) == []
