"""A reload looks at what is new, however many segments there are."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.errors import DamagedFile
from clip_index.generations.history import ManifestReader, manifest_name, read_newest
from clip_index.generations.manifest import Manifest, SegmentEntry, SegmentPack
from clip_index.generations.manifest_format import ParsedSegments, dump_manifest, parse_manifest
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.shard_reader import ShardReader
from clip_index.storage.digested_json import canonical_of, dump_digested, parse_digested
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.pack import PackPart
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.shards import add, content, create_index, path_of, removal, take_over


@dataclass(frozen=True, slots=True)
class WatchedStore(LocalShardStore):
    """Counts the files that its reader asks for, by name."""

    asked: Counter[str] = field(default_factory=Counter)

    def local_file(self, name: str, expected: FileDigest | None = None) -> Path:
        self.asked[name] += 1
        return LocalShardStore.local_file(self, name, expected)

    def read(self, name: str) -> bytes:
        self.asked[name] += 1
        return LocalShardStore.read(self, name)

    def list_names(self, folder: str = "") -> list[str]:
        self.asked[f"listing of {folder}"] += 1
        return LocalShardStore.list_names(self, folder)


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    """A shard with five segments, of which the first has dead rows in a file of tombstones."""
    writer = take_over(index, settings=WriterSettings(max_bitmap_bytes=0))
    for number in range(5):
        add(writer, [lambda o, i=i, n=number: content(f"{n}-{i}", o) for i in range(4)])
        writer.commit()
    add(writer, [lambda o: removal("0-0", o)])
    writer.commit()
    return writer


@pytest.fixture
def store(writer: ShardWriter) -> WatchedStore:
    return WatchedStore(path_of(writer))


@pytest.fixture
def reader(store: WatchedStore) -> ShardReader:
    reader = ShardReader(store, clock=lambda: 0.0)
    reader.reload()
    store.asked.clear()
    return reader


def asked_of_stored(store: WatchedStore) -> set[str]:
    """The files that a generation names, of those that were asked for."""
    return {name for name in store.asked if name.startswith(("segments/", "tombstones/"))}


def test_a_reload_asks_for_the_new_segment_alone(
    writer: ShardWriter, store: WatchedStore, reader: ShardReader
) -> None:
    add(writer, [lambda o: content("new", o)])
    writer.commit()
    assert reader.reload()
    assert asked_of_stored(store) == {writer.manifest.segments[-1].stored_name}


def test_the_next_generations_are_found_without_a_listing(
    writer: ShardWriter, store: WatchedStore, reader: ShardReader
) -> None:
    """A shard that commits all the time has thousands of generations."""
    for names in (["a"], ["b", "c", "d"]):
        for name in names:
            add(writer, [lambda o, name=name: content(name, o)])
            writer.commit()
        assert reader.reload()
        assert reader.view.snapshot.generation == writer.generation
    assert not store.asked["listing of "]


def test_a_reader_that_has_not_looked_for_long_lists_the_generations(
    writer: ShardWriter, store: WatchedStore
) -> None:
    """The successors of its generation may be gone, and a fenced writer's manifest under their number."""
    now = [0.0]
    reader = ShardReader(store, clock=lambda: now[0])
    reader.reload()
    store.asked.clear()
    now[0] = 60.0
    add(writer, [lambda o: content("new", o)])
    writer.commit()
    assert reader.reload()
    assert store.asked["listing of "] == 1


def test_a_fenced_writers_manifest_is_not_walked_to_while_the_newest_one_is_damaged(
    writer: ShardWriter, store: WatchedStore
) -> None:
    """A reader holds its generation, whose successors are collected, so that their numbers are free."""
    now = [0.0]
    reader = ShardReader(store, clock=lambda: now[0])
    reader.reload()
    known = writer.manifest
    for name in ("a", "b", "c"):
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    for gone in range(known.generation + 1, writer.generation):
        store.remove(manifest_name(gone))
    (store.path / manifest_name(writer.generation)).write_bytes(b"{}")
    now[0] = 60.0
    with pytest.raises(DamagedFile):
        reader.reload()
    late = replace(known, generation=known.generation + 1, nonce="late")
    (store.path / manifest_name(late.generation)).write_bytes(dump_manifest(late))
    with pytest.raises(DamagedFile):
        reader.reload()
    assert reader.view.snapshot.generation == known.generation


def test_a_reload_asks_for_the_tombstones_that_changed_alone(
    writer: ShardWriter, store: WatchedStore, reader: ShardReader
) -> None:
    before = reader.view.segments
    add(writer, [lambda o: removal("1-0", o)])
    writer.commit()
    assert reader.reload()
    [changed] = asked_of_stored(store)
    assert changed.startswith(f"tombstones/{writer.manifest.segments[1].segment_id}")
    assert [a is b for a, b in zip(before, reader.view.segments, strict=True)] == [True, False, *[True] * 3]


def test_the_served_files_are_those_of_the_generation(writer: ShardWriter, reader: ShardReader) -> None:
    for change in (lambda o: content("new", o), lambda o: removal("1-0", o)):
        add(writer, [change])
        writer.commit()
        reader.reload()
        named = {writer.store.local_file(name): digest for name, digest in writer.manifest.files()}
        assert reader.files() == named


def test_a_segment_that_is_named_again_is_parsed_once(writer: ShardWriter) -> None:
    manifests = ManifestReader(writer.store)
    first = manifests.read_newest()
    add(writer, [lambda o: content("new", o)])
    writer.commit()
    second = manifests.read_newest()
    assert first is not None
    assert second is not None
    assert second[0] == read_newest(writer.store)
    assert [a is b for a, b in zip(first[0].segments, second[0].segments, strict=False)] == [True] * 5


def entry_of(number: int) -> SegmentEntry:
    parts = {"contents.arrow": PackPart(0, 64), 'odd"],"tombstones":{': PackPart(64, number)}
    pack = SegmentPack(FileDigest(1_000, f"{number:032x}"), parts)
    return SegmentEntry(f"1-{number}", 5, 0, {"image": 5}, pack=pack)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(1, 6), max_size=5, unique=True), min_size=1, max_size=8))
def test_manifests_are_read_alike_after_whatever_other_ones(generations: list[list[int]]) -> None:
    """After a commit that appends segments, a merge that replaces some, a rollback."""
    parsed = ParsedSegments()
    for number, segments in enumerate(generations, 1):
        manifest = Manifest(number, 1, 'a "writer"', "nonce", 0, number, tuple(map(entry_of, segments)))
        data = dump_manifest(manifest)
        assert parse_manifest(data, "manifest", parsed) == parse_manifest(data, "manifest") == manifest
        former = json.dumps(json.loads(data), sort_keys=True).encode()  # as earlier releases wrote it
        assert parse_manifest(former, "manifest", parsed) == manifest


def test_what_is_damaged_behind_known_segments_is_damage() -> None:
    parsed = ParsedSegments()
    manifest = Manifest(1, 1, "writer", "nonce", 0, 1, (entry_of(1),))
    parse_manifest(dump_manifest(manifest), "manifest", parsed)
    data = dump_manifest(replace(manifest, segments=(entry_of(1), entry_of(2))))
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(DamagedFile):
            parse_manifest(bytes(changed), "manifest", parsed)


def with_lists_of_a_later_release(manifest: Manifest, names: list[str]) -> bytes:
    fields = parse_digested(dump_manifest(manifest), "manifest")
    return dump_digested({**fields, "details": {"segments": names, "tombstones": {}}, "sets": names})


def test_lists_that_a_later_release_has_beside_the_segments_are_no_segments() -> None:
    parsed = ParsedSegments()
    for number, (segments, names) in enumerate([([1], ["a"]), ([1], ["a", "b"]), ([1, 2], ["a", "b"])], 1):
        manifest = Manifest(number, 1, "writer", "nonce", 0, number, tuple(map(entry_of, segments)))
        data = with_lists_of_a_later_release(manifest, names)
        assert parse_manifest(data, "manifest", parsed) == manifest


@pytest.mark.parametrize("gap", [b",", b", "])
def test_a_comma_behind_known_segments_with_nothing_behind_it_is_damage(gap: bytes) -> None:
    parsed = ParsedSegments()
    data = dump_manifest(Manifest(1, 1, "writer", "nonce", 0, 1, (entry_of(1),)))
    parse_manifest(data, "manifest", parsed)
    canonical = canonical_of(data)
    assert canonical is not None
    before, end, behind = canonical.rpartition(b'],"tombstones":{')
    spoilt = before + gap + end + behind
    digest = xxhash.xxh3_128_hexdigest(spoilt).encode()
    with pytest.raises(DamagedFile):
        parse_manifest(spoilt[:-1] + b',"self_xxh3_128":"%b"}' % digest, "manifest", parsed)
