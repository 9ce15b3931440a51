"""Whatever lies in the index root is read within bounds, or refused by its name."""

from __future__ import annotations

import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap

from clip_index.errors import DamagedFile, DamagedIndexFile, IndexRefused
from clip_index.generations.history import generation_of
from clip_index.generations.inspection import Inspection
from clip_index.generations.manifest import Manifest, TombstonesEntry, TombstonesFile
from clip_index.generations.manifest_format import dump_manifest, parse_manifest
from clip_index.generations.watermark import Watermark, read_watermark
from clip_index.indexes.canaries import ensure_canaries
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.file_digest import FileDigest, digest_of, verify_file, verify_slowly
from clip_index.storage.pack import PackPart
from clip_index.storage.regular_files import read_regular
from clip_index.writing.shard_writer import WriterSettings
from consumer.quarantine.inflight import InFlight, read_inflight
from fakes.format_1 import rewrite_as_format_1
from fakes.hash_encoder import HashEncoder
from fakes.shards import add, content, create_index, description, path_of, removal, take_over

pytestmark = pytest.mark.timeout(60)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def directory(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, working_in(path.parent):
        server.bind(path.name)  # a whole path might be too long for a socket


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = [fifo, endless, sparse, directory, unix_socket, link_to_itself]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An index with two segments, the first of which has a dead row, in a file of tombstones."""
    root = tmp_path / "root"
    writer = take_over(create_index(root), settings=WriterSettings(max_bitmap_bytes=0))
    add(writer, [lambda o: content("a", o), lambda o: content("b", o)])
    writer.commit()
    add(writer, [lambda o: removal("a", o), lambda o: content("c", o)])
    writer.commit()
    writer.renew_watermark(7)
    writer.close()
    return root


def shard_of(root: Path) -> Path:
    return IndexDirectory.open(root).shard_path(0)


def newest_manifest(root: Path) -> Path:
    return max(shard_of(root).glob("manifest-*"))


def put(path: Path, make: Callable[[Path], None]) -> Path:
    path.unlink()
    make(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "find",
    [
        pytest.param(lambda root: root / "current-1.json", id="current"),
        pytest.param(lambda root: root / "indexes/main/index.json", id="description"),
        pytest.param(newest_manifest, id="manifest"),
        pytest.param(lambda root: next(shard_of(root).glob("segments/*.pack")), id="pack"),
        pytest.param(lambda root: next(shard_of(root).glob("tombstones/*")), id="tombstones"),
    ],
)
def test_what_is_no_file_is_refused_by_its_name_by_readers_and_writers(
    root: Path, find: Callable[[Path], Path], kind: Callable[[Path], None]
) -> None:
    is_refused_by_its_name(root, put(find(root), kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["contents.arrow", "image.faiss"])
def test_what_is_no_file_in_a_segment_of_format_1_is_refused_by_its_name(
    root: Path, name: str, kind: Callable[[Path], None]
) -> None:
    rewrite_as_format_1(shard_of(root))
    is_refused_by_its_name(root, put(next(shard_of(root).glob(f"segments/*/{name}")), kind))


def is_refused_by_its_name(root: Path, path: Path) -> None:
    with pytest.raises(DamagedFile, match=path.name):
        IndexReader(root).reload()
    if path.name not in ("current-1.json", "index.json"):
        index = IndexDirectory.open(root)
        found = next(Inspection(index.shard_store(0)).newest_first())
        assert found.damage is not None
        assert found.damage.file == str(path)
        with pytest.raises(DamagedFile, match=path.name):
            take_over(index)


@pytest.mark.parametrize("kind", KINDS)
def test_canaries_that_are_no_file_are_refused_by_their_name(
    root: Path, kind: Callable[[Path], None]
) -> None:
    index = IndexDirectory.open(root)
    ensure_canaries(index.store, HashEncoder())
    put(index.path / "canaries.json", kind)
    with pytest.raises(DamagedIndexFile, match=r"canaries\.json.*remove the file"):
        index.read_canaries()


@pytest.mark.parametrize("kind", KINDS)
def test_a_watermark_that_is_no_file_is_none(root: Path, kind: Callable[[Path], None]) -> None:
    put(shard_of(root) / "watermark.json", kind)
    assert read_watermark(IndexDirectory.open(root).shard_store(0)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_in_flight_set_that_is_no_file_is_refused_by_its_name(
    tmp_path: Path, kind: Callable[[Path], None]
) -> None:
    kind(tmp_path / "inflight.json")
    with pytest.raises(DamagedFile, match=r"inflight\.json"):
        read_inflight(tmp_path / "inflight.json")


def test_an_in_flight_set_of_a_text_that_is_not_utf8_holds_no_suspects(tmp_path: Path) -> None:
    (tmp_path / "inflight.json").write_bytes(b"\xff\xfe\x00")
    assert read_inflight(tmp_path / "inflight.json") == InFlight()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_turns_into_something_else_while_it_is_served_ends_no_scrub(
    tmp_path: Path, kind: Callable[[Path], None]
) -> None:
    kind(tmp_path / "x")
    for verify in (verify_file, lambda path, digest: verify_slowly(path, digest, lambda _: None)):
        with pytest.raises(DamagedFile, match="x"):
            verify(tmp_path / "x", digest_of(b""))


@pytest.mark.parametrize("folder", ["indexes", "indexes/main", "shard", "shard/segments", "shard/tombstones"])
def test_a_folder_that_is_a_link_is_refused_and_nothing_behind_it_is_removed(
    root: Path, tmp_path: Path, folder: str
) -> None:
    index = IndexDirectory.open(root)
    writer = take_over(index, settings=WriterSettings(0.0, collect_every_seconds=0.0), clock=lambda: 2.0e9)
    path = root / folder.replace("shard", f"indexes/main/{index.shard_name(0)}", 1)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    (elsewhere / "precious").write_text("of somebody else")
    path.symlink_to(elsewhere)
    with pytest.raises(DamagedFile, match="a link"):
        writer.maintain()
    writer.close()
    with pytest.raises(DamagedFile, match="a link"):
        take_over(index)
    with pytest.raises(DamagedFile, match="a link"):
        IndexReader(root).reload()
    assert (elsewhere / "precious").exists()


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    reader = IndexReader(tmp_path / "link")
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.find("b") is not None


def rewrite_manifest(root: Path, change: Callable[[Manifest], Manifest]) -> None:
    path = newest_manifest(root)
    manifest = parse_manifest(path.read_bytes(), str(path))
    put(path, lambda path: path.write_bytes(dump_manifest(change(manifest))) and None)


def with_segment(**changes: Any) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        first, *others = manifest.segments
        return replace(manifest, segments=(replace(first, **changes), *others))

    return change


def with_part(part: PackPart) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        pack = manifest.segments[0].pack
        assert pack is not None
        return with_segment(pack=replace(pack, parts={**pack.parts, "contents.arrow": part}))(manifest)

    return change


def with_tombstones(**changes: Any) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        [(segment_id, entry)] = manifest.tombstones.items()
        changed: TombstonesEntry = replace(entry, **changes)
        return replace(manifest, tombstones={segment_id: changed})

    return change


DIGEST = digest_of(b"")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_segment(segment_id="/etc"), id="an absolute segment"),
        pytest.param(with_segment(segment_id="../../other"), id="a segment above"),
        pytest.param(with_segment(segment_id=".."), id="dots"),
        pytest.param(with_segment(segment_id=""), id="no name"),
        pytest.param(with_segment(segment_id=7), id="a number for a name"),
        pytest.param(with_segment(pack=None, files={"/etc/passwd": DIGEST}), id="an absolute file"),
        pytest.param(with_segment(pack=None, files={"../x": DIGEST}), id="a file above"),
        pytest.param(with_segment(pack=None, files={"a\0b": DIGEST}), id="a zero byte"),
        pytest.param(with_segment(pack=None, files={"a" * 300: DIGEST}), id="a long name"),
        pytest.param(with_part(PackPart(0, 10**9)), id="a part that ends behind its pack"),
        pytest.param(with_part(PackPart(10**12, 0)), id="a part behind its pack"),
        pytest.param(with_part(PackPart(-64, 64)), id="a part before its pack"),
        pytest.param(with_part(PackPart(64, -1)), id="a part of fewer than no bytes"),
        pytest.param(with_part(PackPart(1, 8)), id="a part where no array can be mapped"),
        pytest.param(with_part(PackPart(0.0, 8)), id="a fraction for a place"),  # type: ignore[arg-type]
        pytest.param(with_segment(centroids={"image": FileDigest(8, "../x")}), id="centroids above"),
        pytest.param(with_segment(centroids={"image": FileDigest(-8, "x")}), id="centroids of no size"),
        pytest.param(with_segment(num_contents=10**30), id="too many contents"),
        pytest.param(with_segment(num_contents=0), id="dead rows of no contents"),
        pytest.param(with_segment(num_contents=True), id="a boolean for a number"),
        pytest.param(with_segment(num_vectors={"image": -1}), id="a negative number"),
        pytest.param(with_tombstones(file=TombstonesFile("../../x", DIGEST)), id="tombstones above"),
        pytest.param(with_tombstones(num_dead=-1), id="fewer than no dead rows"),
        pytest.param(with_tombstones(bitmap=b"\xff" * 20), id="dead rows that are no bitmap"),
        pytest.param(with_tombstones(bitmap=b"\x3a"), id="a bitmap that is cut short"),
        pytest.param(with_tombstones(bitmap=BitMap([0, 1]).serialize()), id="more dead rows than counted"),
        pytest.param(with_tombstones(bitmap=BitMap([7]).serialize()), id="a dead row of no content"),
        pytest.param(with_tombstones(file=None), id="dead rows that are nowhere"),
        pytest.param(lambda m: replace(m, first_offset=-1), id="a negative offset"),
        pytest.param(lambda m: replace(m, next_offset=10**30), id="an offset beyond all logs"),
        pytest.param(lambda m: replace(m, first_offset=m.next_offset + 1), id="a range backwards"),
    ],
)
def test_a_manifest_names_only_what_can_lie_in_its_shard(
    root: Path, change: Callable[[Manifest], Manifest]
) -> None:
    rewrite_manifest(root, change)
    with pytest.raises(DamagedFile, match="manifest-"):
        IndexReader(root).reload()
    with pytest.raises(DamagedFile, match="manifest-"):
        take_over(IndexDirectory.open(root))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"num_partitions": 10**9}, id="a milliard partitions"),
        pytest.param({"num_partitions": 0}, id="no partitions"),
        pytest.param({"num_partitions": "4"}, id="a text for a number"),
        pytest.param({"topic": "../../elsewhere"}, id="a topic above"),
        pytest.param({"topic": "/etc"}, id="an absolute topic"),
        pytest.param({"topic": None}, id="no topic"),
    ],
)
def test_a_description_that_no_topic_can_have_is_refused(root: Path, fields: dict[str, Any]) -> None:
    path = root / "indexes/main/index.json"
    known = parse_digested(path.read_bytes(), path)
    put(path, lambda path: path.write_bytes(dump_digested({**known, **fields})) and None)
    with pytest.raises(DamagedFile, match=r"index\.json"):
        IndexReader(root).reload()


def test_an_index_of_too_many_partitions_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(IndexRefused, match="num_partitions"):
        IndexDirectory.create(tmp_path, "main", description(num_partitions=10**9))


def test_names_that_no_writer_uses_are_passed_over(root: Path) -> None:
    (shard_of(root) / f"manifest-{10**20 - 1}.json").write_text("{}")
    (root / f"current-{'9' * 40}.json").write_text("{}")
    assert generation_of(f"manifest-{10**20 - 1}.json") is None
    assert IndexReader(root).reload()
    assert take_over(IndexDirectory.open(root)).generation == 4


def test_a_watermark_beyond_all_times_is_none(root: Path) -> None:
    store = IndexDirectory.open(root).shard_store(0)
    store.replace("watermark.json", dump_digested(dict.fromkeys(Watermark.__slots__, 10**30)))
    assert read_watermark(store) is None


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o022, 0o444), (0o027, 0o440), (0o077, 0o400)], ids=["usual", "group", "own"]
)
def test_the_umask_says_who_may_read_the_files_that_nobody_may_change(
    tmp_path: Path, umask: int, mode: int
) -> None:
    former = os.umask(umask)
    try:
        writer = take_over(create_index(tmp_path))
        add(writer, [content("a"), lambda o: content("b", o)])
        writer.commit()
        add(writer, [lambda o: removal("a", o)])
        writer.commit()
    finally:
        os.umask(former)
    files = [file for file in path_of(writer).rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {mode}


def test_reading_a_small_file_takes_the_memory_of_a_small_file(tmp_path: Path) -> None:
    """`read` reserves as much as it is asked for, and readers look at small files all the time."""
    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert len(read_regular(tmp_path / "small")) == 1000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
