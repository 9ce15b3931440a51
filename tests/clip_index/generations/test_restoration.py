"""Going back to a former generation: what is found good, what is committed, and who is fenced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clip_index.content import Delta
from clip_index.errors import DamagedFile, Fenced, IndexRefused
from clip_index.generations.garbage import GarbageCollector
from clip_index.generations.history import GenerationTaken, list_generations, manifest_name, read_newest
from clip_index.generations.inspection import Inspection
from clip_index.generations.restoration import (
    Restoration,
    commit_restoration,
    plan_refill,
    plan_repair,
    plan_rollback,
)
from clip_index.generations.watermark import Watermark, write_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot, open_root
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.shard_writer import ShardWriter
from fakes.shards import (
    add,
    content,
    create_index,
    removal,
    root_of,
    take_over,
    unit_vectors,
)
from fakes.stored_damage import flip_a_bit, newest_pack, rewrite


@pytest.fixture
def index(root: IndexRoot) -> IndexDirectory:
    return create_index(root)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    """Generation 2 shows a; 3 shows a and b; 4 shows a, b and c: each has one segment more."""
    writer = take_over(index)
    for changes in ([content("a")], [content("b", 1)], [removal("nobody", 2), content("c", 3)]):
        add(writer, changes)
        writer.commit()
    return writer


def damage_manifests(writer: ShardWriter, *generations: int) -> None:
    for generation in generations:
        data = writer.store.read(manifest_name(generation))
        rewrite(writer.store, manifest_name(generation), data[:-2] + b"|" + data[-1:])


def repair(store: ShardStore) -> Restoration:
    plan = plan_repair(Inspection(store))
    assert plan is not None
    commit_restoration(store, plan, writer_id="repair")
    return plan


def live_ids(index: IndexDirectory) -> list[str]:
    reader = IndexReader(root_of(index))
    reader.reload()
    assert reader.searcher is not None
    [hits] = reader.searcher.search(unit_vectors(1), k=100, modality="image")
    return sorted(hit.content_id for hit in hits)


def damages(writer: ShardWriter) -> dict[int, str | None]:
    found = Inspection(writer.store).newest_first()
    return {one.generation: Path(one.damage.file).name if one.damage else None for one in found}


def test_every_generation_names_its_first_damage(writer: ShardWriter) -> None:
    damage_manifests(writer, 4)
    flip_a_bit(writer.store, newest_pack(writer, 1))
    writer.store.remove(newest_pack(writer, 0))
    packs = [newest_pack(writer, number).rpartition("/")[2] for number in range(2)]
    assert damages(writer) == {4: manifest_name(4), 3: packs[0], 2: packs[0], 1: None}


def test_sound_generations_are_good(writer: ShardWriter) -> None:
    assert damages(writer) == {4: None, 3: None, 2: None, 1: None}
    assert plan_repair(Inspection(writer.store)) is None


def test_a_shard_that_nobody_has_begun_needs_no_repair(root: IndexRoot) -> None:
    assert plan_repair(Inspection(open_root(root))) is None


def test_a_repair_shows_the_newest_good_generation_and_the_log_fills_in_the_rest(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    damage_manifests(writer, 4)
    plan = repair(writer.store)
    assert (plan.source.generation, plan.next_offset_before) == (3, None)
    assert live_ids(index) == ["a", "b"]
    successor = take_over(index)
    assert (successor.generation, successor.next_offset) == (6, 2)
    add(successor, [removal("a", 2), content("c", 3)])
    successor.commit()
    assert live_ids(index) == ["b", "c"]


def test_a_repair_skips_generations_that_rest_on_a_damaged_segment(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    flip_a_bit(writer.store, newest_pack(writer, 1))
    with pytest.raises(DamagedFile):
        take_over(index)  # which leaves a generation of its own behind
    plan = repair(writer.store)
    assert plan.source.generation == 2
    assert [found.generation for found in plan.left_behind] == [5, 4, 3]
    assert plan.next_offset_before == 4
    assert plan.left_segments == sorted(entry.segment_id for entry in writer.manifest.segments[1:])
    assert live_ids(index) == ["a"]


def test_where_no_generation_is_good_only_the_log_can_help(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    flip_a_bit(writer.store, newest_pack(writer, 0))
    writer.store.remove(manifest_name(1))
    with pytest.raises(IndexRefused, match=r"none of 3 generations is good.*segments.*pack"):
        plan_repair(Inspection(writer.store))
    commit_restoration(writer.store, plan_refill(Inspection(writer.store)), writer_id="repair")
    assert live_ids(index) == []
    assert take_over(index).next_offset == 0


def test_an_emptied_shard_has_no_watermark_and_a_former_generation_has_its_own(writer: ShardWriter) -> None:
    generation = writer.generation
    writer.add(Delta(writer.next_offset, writer.next_offset + 1, watermark_ms=1_700_000_000_000))
    writer.commit()
    assert writer.manifest.watermark_ms == 1_700_000_000_000
    inspection = Inspection(writer.store)
    assert plan_refill(inspection).source.watermark_ms is None
    assert plan_rollback(inspection, generation).source.watermark_ms is None


def test_without_a_readable_manifest_nothing_is_known_of_the_shard(writer: ShardWriter) -> None:
    damage_manifests(writer, 1, 2, 3, 4)
    with pytest.raises(IndexRefused, match="no manifest can be read"):
        plan_refill(Inspection(writer.store))


def test_a_rollback_shows_a_former_generation(index: IndexDirectory, writer: ShardWriter) -> None:
    plan = plan_rollback(Inspection(writer.store), 2)
    assert plan.next_offset_before == 4
    committed = commit_restoration(writer.store, plan, writer_id="rollback")
    assert (committed.generation, committed.next_offset, committed.first_offset) == (5, 1, 0)
    assert live_ids(index) == ["a"]


@pytest.mark.parametrize(
    ("generation", "sentence"),
    [
        pytest.param(1, r"generation 1 .*not JSON", id="unreadable"),
        pytest.param(3, r"generation 3: .*segments.*pack", id="a file of it is damaged"),
        pytest.param(4, "is the newest already", id="the newest"),
        pytest.param(9, "is not there", id="not there"),
    ],
)
def test_a_rollback_to_what_cannot_serve_is_refused(
    writer: ShardWriter, generation: int, sentence: str
) -> None:
    plan_rollback(Inspection(writer.store), 3)
    damage_manifests(writer, 1)
    if generation == 3:
        flip_a_bit(writer.store, newest_pack(writer, 1))
    with pytest.raises(IndexRefused, match=sentence):
        plan_rollback(Inspection(writer.store), generation)


def test_a_running_writer_is_fenced_even_if_its_epoch_could_not_be_read(index: IndexDirectory) -> None:
    writers = [take_over(index, writer_id=name) for name in ("one", "two", "three")]
    damage_manifests(writers[0], 2, 3)
    plan = repair(writers[0].store)
    assert plan.source.writer_epoch == 1
    add(writers[2], [content("a")])
    with pytest.raises(Fenced):
        writers[2].commit()


def test_a_generation_that_nobody_has_looked_at_is_not_hidden(writer: ShardWriter) -> None:
    plan = plan_rollback(Inspection(writer.store), 2)
    add(writer, [content("d", 4)])
    writer.commit()
    with pytest.raises(GenerationTaken):
        commit_restoration(writer.store, plan, writer_id="rollback")
    assert list_generations(writer.store)[-1] == 5


def test_files_that_garbage_collection_took_meanwhile_are_named(writer: ShardWriter) -> None:
    plan = plan_rollback(Inspection(writer.store), 2)
    writer.store.remove(newest_pack(writer, 0))
    with pytest.raises(DamagedFile, match="collected before generation 5 named it"):
        commit_restoration(writer.store, plan, writer_id="rollback")


def test_the_watermark_goes_back_with_the_offsets(index: IndexDirectory, writer: ShardWriter) -> None:
    write_watermark(writer.store, Watermark(1_700_000_000_000, 4, writer.epoch))
    reader = IndexReader(root_of(index))

    def watermark() -> int | None:
        reader.reload()
        assert reader.searcher is not None
        return reader.searcher.shards["content-uploads-0"].watermark_ms

    assert watermark() == 1_700_000_000_000
    commit_restoration(writer.store, plan_rollback(Inspection(writer.store), 2), writer_id="rollback")
    assert watermark() is None


def collect(writer: ShardWriter, at_seconds: float) -> Sequence[int]:
    """Collect as if this many seconds had passed; return the generations that stay."""
    newest = read_newest(writer.store)
    assert newest is not None
    now = writer.store.list_times()[manifest_name(newest.generation)] + at_seconds
    collector = GarbageCollector(writer.store, retain_for=600.0)
    collector.collect(newest=newest.generation, in_flight=(), now=now)
    return list_generations(writer.store)


def test_garbage_stays_while_a_retained_manifest_is_damaged(writer: ShardWriter) -> None:
    damage_manifests(writer, 4)
    repair(writer.store)
    left_behind = newest_pack(writer, 2)
    assert collect(writer, 10_000.0) == [3, 4, 5]
    assert writer.store.exists(left_behind)


def test_what_a_repair_left_behind_is_collected_in_the_end(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    damage_manifests(writer, 4)
    repair(writer.store)
    left_behind = newest_pack(writer, 2)
    successor = take_over(index)
    for offset in (2, 3):
        add(successor, [content("again", offset)])
        successor.commit()
    assert collect(writer, 10_000.0) == [6, 7, 8]
    assert not writer.store.exists(left_behind)
    assert live_ids(index) == ["a", "again", "b"]
