"""Commands and checks treat quantised lists as they treat embeddings, in a directory and in a bucket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from clip_index.generations.history import read_newest
from clip_index.generations.manifest import SegmentEntry
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot
from clip_index.vectors import shared_vectors
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import WriterSettings
from cliptide.doctor.disk_checks import check_index
from cliptide.verify.verification import LogFold, ShardDifference, covered_ranges
from consumer.settings import IndexSettings, Settings
from event_log.records import Record
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, take_over, unit_vectors
from fakes.stored_damage import flip_a_bit
from query_api.serving.scrub import Scrub
from query_api.telemetry.metrics import Metrics
from tests.cliptide.snapshot.test_backup_in_buckets import Places

NUM_CONTENTS = 60
QUANTISED = MergeSettings(merge_factor=2, floor_entries=1_000, max_dead_share=1.0, vectors="sq8")
PLACES = ["directory", "bucket"]


@pytest.fixture(autouse=True)
def _small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_vectors, "MIN_NODES", 8)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture(params=PLACES)
def root(request: pytest.FixtureRequest, places: Places) -> IndexRoot:
    """An index of one segment, the lists of which are quantised."""
    root, lanes = places.make(request.param, "root"), InlineLanes()
    lanes.release(is_released=True)
    writer = take_over(create_index(root), settings=WriterSettings(merge=QUANTISED), lanes=lanes)
    for first in (0, NUM_CONTENTS // 2):
        add(writer, [content(f"c-{first + n}", first + n) for n in range(NUM_CONTENTS // 2)])
        writer.commit()
    for _ in range(3):
        writer.maintain()
    writer.close()
    assert entry_of(root).is_quantised
    return root


def entry_of(root: IndexRoot) -> SegmentEntry:
    newest = read_newest(IndexDirectory.open(root).shard_store(0))
    assert newest is not None
    [entry] = newest.segments
    return entry


def searcher_of(root: IndexRoot) -> Searcher:
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def answers(root: IndexRoot) -> list[list[tuple[str, float]]]:
    found = searcher_of(root).search(unit_vectors(5, 4), k=20, modality="image")
    return [[(hit.content_id, hit.score) for hit in hits] for hits in found]


@pytest.mark.parametrize("place", PLACES)
def test_a_restored_index_is_quantised_and_answers_the_same(
    root: IndexRoot, places: Places, place: str
) -> None:
    saved, restored = places.make(place, "saved"), places.make(place, "restored")
    for result in (places.run("backup", saved, root), places.run("restore", saved, restored)):
        assert result.exit_code == 0, result.output
    assert entry_of(restored).is_quantised
    assert answers(restored) == answers(root)


def test_the_list_of_generations_finds_damage_and_a_repair_ends_it(root: IndexRoot, places: Places) -> None:
    listed = places.run_on(root, "list", "--json")
    assert {json.loads(line)["damage"] for line in listed.stdout.splitlines()} == {None}
    flip_a_bit(IndexDirectory.open(root).shard_store(0), entry_of(root).stored_name)
    assert places.run_on(root, "list").exit_code == 1
    assert places.run_on(root, "repair", "--while-running").exit_code == 0
    assert places.run_on(root, "list").exit_code == 0


def test_it_equals_its_log(root: IndexRoot) -> None:
    searcher, index = searcher_of(root), IndexDirectory.open(root)
    folded = LogFold(covered_ranges(searcher, index.partition_of), set())
    folded.log_starts = {0: 0}
    for n in range(NUM_CONTENTS):
        event = b'{"content_id": "c-%d", "content": {"text": "a red dress"}}' % n
        folded.add(Record("content-uploads", 0, n, f"c-{n}".encode(), event, (), 1_700_000_000_000, 1))
    assert folded.compare(searcher, index.partition_of) == [
        ShardDifference("content-uploads-0", num_equal=NUM_CONTENTS)
    ]


def test_the_scrub_reads_it_and_finds_a_flipped_bit(root: IndexRoot) -> None:
    reader, registry = IndexReader(root), CollectorRegistry()
    reader.reload()
    files, scrub = reader.served_files(), Scrub(reader, Metrics(registry), interval_seconds=0.01)

    def scrubbed(status: str) -> float | None:
        return registry.get_sample_value("cliptide_query_scrubbed_files_total", {"status": status})

    scrub.scrub_once(files)
    assert scrubbed("good") == len(files)
    [pack] = [path for path in files if path.suffix == ".pack"]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    scrub.scrub_once(files)
    assert scrubbed("damaged" if isinstance(root, Path) else "mended") == 1


def test_the_doctor_finds_nothing_wrong(root: IndexRoot, places: Places) -> None:
    location = root if isinstance(root, Path) else str(root)
    index = IndexSettings(root=location, cache_dir=places.cache, vectors="sq8")
    findings = check_index(Settings(index=index))
    assert {finding.status for finding in findings} <= {"ok", "warning"}, findings
