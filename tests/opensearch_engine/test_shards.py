"""The writer: however a log is cut into batches, commits, deaths and replays, the index equals its fold."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from clip_index.content import Change, Delta, EncodedContent, RemovedContent
from clip_index.errors import DeltaMismatch, Fenced
from clip_index.fold import UNSEEN, fold
from clip_index.generations.traces import TracedRecord
from fakes.shards import content
from opensearch_engine.connection import Connection
from opensearch_engine.errors import EngineMissing, EngineUnavailable
from opensearch_engine.index import OpenSearchIndex
from opensearch_engine.reader import OpenSearchReader
from opensearch_engine.shards import OpenSearchShards, OpenSearchShardWriter


def own(index: OpenSearchIndex, name: str = "writer-1", **changes: Any) -> OpenSearchShardWriter:
    arguments: dict[str, Any] = {"first_offset": 0, "own_epoch": None, **changes}
    return OpenSearchShards(index, name).become_owner(arguments.pop("partition", 0), **arguments)


def live_of(index: OpenSearchIndex, partition: int = 0) -> dict[str, int]:
    reader = OpenSearchReader(index.connection, index.index_id)
    reader.reload()
    assert reader.searcher is not None
    shard = index.shard_name(partition)
    stored = [one for one in reader.searcher.stored_offsets() if one.shard == shard]
    return {one.content_id: one.offset for one in stored if one.is_live}


def written(writer: OpenSearchShardWriter, changes: Sequence[Change], next_offset: int | None = None) -> int:
    last = changes[-1].offset + 1 if changes else writer.next_offset
    writer.add(Delta(writer.next_offset, next_offset or last, changes))
    return writer.commit()


def test_a_committed_content_is_searchable_and_covered(index: OpenSearchIndex) -> None:
    assert written(own(index), [content("a", 0), content("b", 1)]) == 2
    assert live_of(index) == {"a": 0, "b": 1}


def test_a_delta_that_skips_records_is_refused(index: OpenSearchIndex) -> None:
    with pytest.raises(DeltaMismatch):
        own(index).add(Delta(3, 4))


def test_the_next_owner_goes_on_where_the_last_one_committed(index: OpenSearchIndex) -> None:
    written(own(index, first_offset=5), [content("a", 6)])
    successor = own(index, "writer-2", first_offset=99)
    assert (successor.next_offset, successor.epoch, successor.generation) == (7, 2, 3)


def test_a_writer_that_was_fenced_moves_nothing(index: OpenSearchIndex) -> None:
    former = own(index, "writer-1")
    former.add(Delta(0, 1, [content("late", 0)]))
    successor = own(index, "writer-2")
    written(successor, [content("late", 0), RemovedContent("late", 1)])
    with pytest.raises(Fenced):
        former.commit()
    assert live_of(index) == {}
    assert own(index, "writer-3").next_offset == 2


def test_a_fenced_writer_finds_out_while_it_is_idle(index: OpenSearchIndex) -> None:
    now = [0.0]
    former = OpenSearchShards(index, "writer-1", clock=lambda: now[0]).become_owner(
        0, first_offset=0, own_epoch=None
    )
    own(index, "writer-2")
    former.maintain()
    now[0] = 60.0
    with pytest.raises(Fenced):
        former.maintain()


def test_an_owner_that_lost_track_takes_over_from_itself_only(index: OpenSearchIndex) -> None:
    first = own(index, "writer-1")
    assert own(index, "writer-1", own_epoch=first.epoch).epoch == 2
    own(index, "writer-2")
    with pytest.raises(Fenced):
        own(index, "writer-1", own_epoch=2)


def test_a_late_write_does_not_bring_a_deleted_content_back(index: OpenSearchIndex) -> None:
    zombie = own(index, "writer-1")
    zombie.add(Delta(0, 1, [content("a", 0)]))
    successor = own(index, "writer-2")
    written(successor, [content("a", 0), RemovedContent("a", 1)])
    index.connection.ask("POST", f"/{index.contents}/_forcemerge", max_num_segments=1)
    with pytest.raises(Fenced):
        zombie.commit()
    assert live_of(index) == {}


def test_an_id_in_two_partitions_is_folded_in_each(index: OpenSearchIndex) -> None:
    written(own(index, partition=0), [content("a", 0), RemovedContent("a", 1)])
    written(own(index, partition=1), [content("a", 0)])
    assert (live_of(index, 0), live_of(index, 1)) == ({}, {"a": 0})


@pytest.mark.parametrize("content_id", ["x" * 512, "é" * 256, "a/b?c#d %", "\x00\n", "0/0"])
def test_any_content_id_of_an_event_can_be_stored(index: OpenSearchIndex, content_id: str) -> None:
    written(own(index), [content(content_id, 0), content("other", 1)])
    assert live_of(index) == {content_id: 0, "other": 1}


def test_watermark_and_traces_are_read_back(index: OpenSearchIndex) -> None:
    shards = OpenSearchShards(index, "writer-1")
    writer = shards.become_owner(1, first_offset=0, own_epoch=None)
    assert shards.read_watermark(1) is None
    written(writer, [content("a", 0)])
    writer.renew_watermark(1234)
    writer.publish_traces([TracedRecord(0, "00-1-2-01", 5)])
    found = shards.read_watermark(1)
    assert found is not None
    assert (found.watermark_ms, found.next_offset, found.writer_epoch) == (1234, 1, 1)
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    assert reader.read_traces(index.shard_name(1)) == [TracedRecord(0, "00-1-2-01", 5)]


def test_a_former_owner_does_not_overwrite_the_watermark_of_its_successor(index: OpenSearchIndex) -> None:
    former, successor = own(index, "writer-1"), own(index, "writer-2")
    successor.renew_watermark(2000)
    former.renew_watermark(1000)
    found = OpenSearchShards(index, "writer-3").read_watermark(0)
    assert found is not None
    assert found.watermark_ms == 2000


class LosingConnection(Connection):
    """Loses the answers of some requests, before or after OpenSearch has done what they ask."""

    def __init__(self, inner: Connection, fails: Iterator[str | None]) -> None:
        super().__init__(inner.settings)
        self._fails = fails

    def ask(self, method: str, path: str, body: object = None, **params: object) -> dict[str, Any]:
        how = next(self._fails, None)
        if how == "before":
            raise EngineUnavailable("lost before")
        answer = super().ask(method, path, body, **params)
        if how == "after":
            raise EngineUnavailable("lost after")
        return answer


def random_log(seed: int, num_events: int) -> list[Change]:
    chosen = random.Random(seed)
    log: list[Change] = []
    for offset in range(num_events):
        content_id, version = chosen.choice("abcdef"), chosen.choice([None, 1, 2, 3])
        if chosen.random() < 0.3:
            log.append(RemovedContent(content_id, offset, version))
        else:
            log.append(content(content_id, offset, version=version))
    return log


def folded(log: Sequence[Change]) -> dict[str, int]:
    states, live = {}, {}
    for change in log:
        is_delete = isinstance(change, RemovedContent)
        after = fold(states.get(change.content_id, UNSEEN), version=change.version, is_delete=is_delete)
        if after is not None:
            states[change.content_id] = after
            live[change.content_id] = None if is_delete else change.offset
    return {content_id: offset for content_id, offset in live.items() if offset is not None}


@pytest.mark.parametrize("seed", range(8))
def test_the_index_equals_the_fold_whatever_dies_and_whatever_answer_is_lost(
    index: OpenSearchIndex, seed: int
) -> None:
    chosen = random.Random(seed)
    log = random_log(seed, 60)

    def fails() -> Iterator[str | None]:
        while True:
            yield chosen.choices([None, "before", "after"], [8, 1, 1])[0]

    losing = OpenSearchIndex(
        LosingConnection(index.connection, fails()), index.index_id, index.description, root=index.root
    )
    writer, number, zombies = None, 0, []
    while writer is None or writer.committed_next_offset < len(log):
        try:
            if writer is None:
                number += 1
                writer = OpenSearchShards(losing, f"writer-{number}").become_owner(
                    0, first_offset=0, own_epoch=None
                )
            start = writer.next_offset
            end = min(len(log), start + chosen.randint(1, 9))
            if start < end:
                writer.add(Delta(start, end, log[start:end]))
            if chosen.random() < 0.6 or end == len(log):
                writer.commit()
            if chosen.random() < 0.15:
                zombies.append(writer)
                writer = None
        except EngineUnavailable:
            continue
    for zombie in zombies:
        with contextlib.suppress(Fenced, EngineUnavailable):
            zombie.commit()
    assert live_of(index) == folded(log)
    assert own(index, "last").next_offset == len(log)


def test_a_write_into_an_index_that_is_gone_is_an_error_and_creates_none(index: OpenSearchIndex) -> None:
    writer = own(index)
    writer.add(Delta(0, 1, [content("a", 0)]))
    index.connection.ask("DELETE", f"/{index.contents}-1")
    with pytest.raises(EngineMissing):
        writer.commit()
    with pytest.raises(EngineMissing):
        index.connection.ask("GET", f"/{index.contents}")


def test_progress_is_not_ahead_of_contents_that_could_not_be_stored(index: OpenSearchIndex) -> None:
    """A full disk makes an index read-only: the commit waits, and goes on when there is space."""
    writer = own(index)
    written(writer, [content("a", 0)])
    blocked = "index.blocks.read_only_allow_delete"
    index.connection.ask("PUT", f"/{index.contents}/_settings", {blocked: True})
    writer.add(Delta(1, 2, [content("b", 1)]))
    with pytest.raises(EngineUnavailable):
        writer.commit()
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.shards[index.shard_name(0)].next_offset == 1
    index.connection.ask("PUT", f"/{index.contents}/_settings", {blocked: None})
    assert writer.commit() == 2
    assert live_of(index) == {"a": 0, "b": 1}


def test_large_batches_are_sent_in_several_requests(index: OpenSearchIndex) -> None:
    texts = [content(f"t{i}", i, modality="text", num_rows=64, text="word " * 20_000) for i in range(60)]
    assert written(own(index), texts) == 60
    assert len(live_of(index)) == 60
    assert isinstance(texts[0], EncodedContent)
