"""A takeover verifies what look-ups need. The rest is verified later, and before anything of it is used."""

from __future__ import annotations

import errno
import json
import random
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clip_index.content import Delta
from clip_index.errors import DamagedFile, Fenced
from clip_index.generations.history import read_manifest, read_newest
from clip_index.generations.inspection import Inspection
from clip_index.generations.manifest import Manifest, SegmentEntry
from clip_index.generations.manifest_format import dump_manifest, parse_manifest
from clip_index.generations.restoration import commit_restoration, plan_repair
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.segments.segment_files import PARTS_OF_IDS
from clip_index.storage.buckets.object_bucket import open_bucket
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.local_store import LocalShardStore
from clip_index.vectors.centroid_set import CentroidSets
from clip_index.writing.deferred_segment import DeferredSegment
from clip_index.writing.late_verification import THREAD, LateVerification
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_state import open_state
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, create_index, description, patch, removal, take_over

NUM_CONTENTS = 8
_DIGEST = bytes(range(32))
_DEFERRED = "thumbnails.arrow"
_PATIENCE_SECONDS = 60.0
_CUT_BYTES = 1_000_000  # behind the columns, before the ids
_PART_OF_SMALL = "image.faiss"


def fill(index: IndexDirectory, num_segments: int = 1, partition: int = 0) -> None:
    """Write segments of more than a megabyte each, most of which is thumbnails."""
    writer, noise = take_over(index, partition), random.Random(1)
    for number in range(num_segments):
        add(
            writer,
            [
                content(f"{number}-{i}", thumbnail=noise.randbytes(200_000), digest=_DIGEST, text="t")
                for i in range(NUM_CONTENTS)
            ],
        )
        add(writer, [removal(f"gone-{number}", version=3)])
        writer.commit()
    writer.close()


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    index = create_index(tmp_path)
    fill(index)
    return index


def newest(index: IndexDirectory) -> Manifest:
    manifest = read_newest(index.shard_store(0))
    assert manifest is not None
    return manifest


def pack_of(index: IndexDirectory, number: int = 0) -> tuple[SegmentEntry, Path]:
    entry = newest(index).segments[number]
    return entry, index.shard_store(0).local_file(entry.stored_name)


def flip(path: Path, position: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(position)
        [byte] = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 4]))


def damage(index: IndexDirectory, part: str, number: int = 0) -> Path:
    """Flip a bit in the middle of a part of the pack."""
    entry, path = pack_of(index, number)
    assert entry.pack is not None
    place = entry.pack.parts[part]
    flip(path, place.offset + place.size_bytes // 2)
    return path


def sentence_of_a_whole_look(index: IndexDirectory) -> str:
    with pytest.raises(DamagedFile) as refused:
        open_state(index.shard_store(0), newest(index))
    return str(refused.value)


def verify_the_rest(writer: ShardWriter) -> None:
    """Take turns as the consumer does, until the other thread has verified everything."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        writer.maintain()
        if writer.is_verified:
            return
        time.sleep(0.001)
    raise AssertionError("the verification does not end")


def take_over_and_verify(index: IndexDirectory) -> None:
    with closing(take_over(index)) as writer:
        verify_the_rest(writer)


def verify_and_merge(writer: ShardWriter) -> None:
    for _ in range(3):
        writer.maintain()


def merge_all(writer: ShardWriter) -> None:
    for _ in range(3):
        writer._merges.run(writer._buffer)


def test_ids_are_found_and_commits_made_before_the_rest_is_verified(index: IndexDirectory) -> None:
    damage(index, _DEFERRED)
    writer = take_over(index)
    assert not writer.is_verified
    add(writer, [removal("0-0"), content("gone-0", version=2), content("new")])
    writer.commit()
    assert writer.manifest.num_live() == NUM_CONTENTS  # one was deleted, one is new, one is too old
    writer.close()


def test_damage_that_is_found_later_has_the_sentence_that_a_takeover_has(index: IndexDirectory) -> None:
    damage(index, _DEFERRED)
    told = sentence_of_a_whole_look(index)
    writer = take_over(index)
    with pytest.raises(DamagedFile) as refused:
        verify_the_rest(writer)
    assert str(refused.value) == told
    writer.close()


@pytest.mark.parametrize("part", PARTS_OF_IDS)
def test_damage_of_what_look_ups_need_is_refused_before_the_first_commit(
    index: IndexDirectory, part: str
) -> None:
    damage(index, part)
    told = sentence_of_a_whole_look(index)
    with pytest.raises(DamagedFile) as refused:
        take_over(index)
    assert str(refused.value) == told


def test_a_file_that_was_cut_short_is_refused_at_once(index: IndexDirectory) -> None:
    _, path = pack_of(index)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(DamagedFile):
        take_over(index)


def test_every_flipped_bit_is_refused_before_it_can_be_merged(index: IndexDirectory) -> None:
    _, path = pack_of(index)
    dice = random.Random(7)
    for _ in range(40):
        position = dice.randrange(path.stat().st_size)
        flip(path, position)
        with pytest.raises(DamagedFile):
            take_over_and_verify(index)
        flip(path, position)
    take_over_and_verify(index)


def test_what_was_computed_before_is_found_at_once_after_a_takeover(index: IndexDirectory) -> None:
    before = open_state(index.shard_store(0), newest(index)).find_derived(_DIGEST)
    writer = take_over(index)
    found = writer.find_derived(_DIGEST)
    assert before is not None
    assert found is not None
    assert found.thumbnail == before.thumbnail
    writer.close()


@pytest.mark.parametrize("part", [_DEFERRED, "image.faiss", "image.nodes.npy"])
def test_nothing_damaged_is_taken_for_what_was_computed_before(index: IndexDirectory, part: str) -> None:
    damage(index, part)
    writer = take_over(index)
    assert writer.find_derived(_DIGEST) is None
    with pytest.raises(DamagedFile):
        verify_the_rest(writer)
    writer.close()


def test_a_patch_writes_nothing_damaged_again(index: IndexDirectory) -> None:
    damage(index, _DEFERRED)
    writer = take_over(index)
    with pytest.raises(DamagedFile):
        add(writer, [patch("0-0", metadata={"colour": "red"})])
    writer.close()


def test_a_patch_that_comes_at_once_keeps_the_thumbnail(index: IndexDirectory) -> None:
    writer = take_over(index)
    add(writer, [patch("0-0", metadata={"colour": "red"})])
    writer.commit()
    state = open_state(index.shard_store(0), writer.manifest)
    row = state.find(["0-0"])["0-0"].live_row
    assert row is not None
    assert len(state.read(row).thumbnail or b"") == 200_000
    writer.close()


def test_a_merge_that_comes_first_refuses_the_damage(tmp_path: Path) -> None:
    index = create_index(tmp_path)
    fill(index, num_segments=2)
    damage(index, _DEFERRED, number=1)
    lanes = InlineLanes()
    lanes.release(is_released=True)
    settings = WriterSettings(merge=MergeSettings(2, max_dead_share=1.0))
    writer = take_over(index, settings=settings, lanes=lanes)
    with pytest.raises(DamagedFile):
        merge_all(writer)
    assert len(writer.manifest.segments) == 2
    writer.close()


def test_a_segment_that_was_merged_away_is_not_looked_for(tmp_path: Path) -> None:
    index = create_index(tmp_path)
    fill(index, num_segments=2)
    lanes = InlineLanes()
    lanes.release(is_released=True)
    settings = WriterSettings(merge=MergeSettings(2, max_dead_share=1.0))
    writer = take_over(index, settings=settings, lanes=lanes)
    paths = [pack_of(index, number)[1] for number in range(2)]
    merge_all(writer)
    assert len(writer.manifest.segments) == 1
    for path in paths:
        path.unlink()
    verify_the_rest(writer)
    writer.close()


def test_a_file_that_is_gone_is_damage(index: IndexDirectory) -> None:
    writer = take_over(index)
    _, path = pack_of(index)
    path.unlink()
    with pytest.raises(DamagedFile, match="it is missing"):
        verify_the_rest(writer)
    writer.close()


def without_part_digests(entry: SegmentEntry) -> bool:
    assert entry.pack is not None
    return all(part.xxh3_128 is None for part in entry.pack.parts.values())


def test_a_segment_without_digests_of_parts_is_verified_as_a_whole(index: IndexDirectory) -> None:
    """An earlier release wrote it."""
    store, manifest = index.shard_store(0), newest(index)
    former = dump_manifest(manifest).decode()
    for part in parts_with_digests(manifest.segments[0]):
        former = former.replace(f',"{part}"', "")
    assert without_part_digests(parse_unchecked(former).segments[0])
    damage(index, _DEFERRED)
    name = f"manifest-{manifest.generation:020d}.json"
    store.remove(name)
    store.put({name: dump_manifest(parse_unchecked(former))})
    with pytest.raises(DamagedFile):
        take_over(index)


def parts_with_digests(entry: SegmentEntry) -> list[str]:
    assert entry.pack is not None
    return [part.xxh3_128 for part in entry.pack.parts.values() if part.xxh3_128 is not None]


def parse_unchecked(text: str) -> Manifest:
    """Parse a manifest whose own digest no longer fits."""
    fields = json.loads(text)
    fields.pop("self_xxh3_128")
    return parse_manifest(dump_digested(fields), "manifest")


def test_a_manifest_says_the_digests_of_parts_for_large_packs_alone(index: IndexDirectory) -> None:
    writer = take_over(index)
    add(writer, [content("small")])
    writer.commit()
    large, small = writer.manifest.segments
    assert len(parts_with_digests(large)) == len(PARTS_OF_IDS)
    assert without_part_digests(small)
    writer.close()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.unlink(), id="removed"),
        pytest.param(lambda path: flip(path, path.stat().st_size - 1), id="damaged"),
    ],
)
def test_a_copy_of_an_object_that_is_damaged_after_the_takeover_is_fetched_again(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    index = IndexDirectory(object_store(memory_bucket(), "indexes/main", tmp_path), "main", description())
    fill(index)
    writer = take_over(index)
    _, path = pack_of(index)
    change(path)
    verify_the_rest(writer)
    assert writer.find_derived(_DIGEST) is not None
    writer.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> IndexDirectory:
    """The index in a bucket, as a machine sees it that has no copies yet."""
    bucket = memory_bucket()
    fill(IndexDirectory(object_store(bucket, "indexes/main", tmp_path / "one"), "main", description()))
    return IndexDirectory(object_store(bucket, "indexes/main", tmp_path / "two"), "main", description())


def copied_bytes(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "two" / "copies").rglob("*") if path.is_file())


def test_another_machine_fetches_what_look_ups_need(elsewhere: IndexDirectory, tmp_path: Path) -> None:
    with closing(take_over(elsewhere)) as writer:
        add(writer, [removal("0-0"), content("gone-0", version=2), content("new")])
        writer.commit()
        assert writer.manifest.num_live() == NUM_CONTENTS
        verify_the_rest(writer)
        assert writer.find_derived(_DIGEST) is None  # it costs less to encode one content than to fetch all
        large = writer.manifest.segments[0]
        assert copied_bytes(tmp_path) < large.size_bytes / 20


def test_another_machine_fetches_the_whole_file_for_a_patch(
    elsewhere: IndexDirectory, tmp_path: Path
) -> None:
    with closing(take_over(elsewhere)) as writer:
        add(writer, [patch("0-0", metadata={"colour": "red"})])
        writer.commit()
        state = open_state(elsewhere.shard_store(0), writer.manifest)
        row = state.find(["0-0"])["0-0"].live_row
        assert row is not None
        assert len(state.read(row).thumbnail or b"") == 200_000


@pytest.mark.parametrize("part", PARTS_OF_IDS)
def test_an_object_with_a_damaged_part_is_refused_on_another_machine(
    elsewhere: IndexDirectory, part: str
) -> None:
    damage_object(elsewhere, part)
    with pytest.raises(DamagedFile, match="memory://"):
        take_over(elsewhere)


def test_a_damaged_object_is_refused_when_a_patch_needs_it(elsewhere: IndexDirectory) -> None:
    damage_object(elsewhere, _DEFERRED)
    with closing(take_over(elsewhere)) as writer, pytest.raises(DamagedFile, match="memory://"):
        add(writer, [patch("0-0", metadata={"colour": "red"})])


def damage_object(index: IndexDirectory, part: str) -> None:
    store, [entry] = index.shard_store(0), newest(index).segments
    assert entry.pack is not None
    place, data = entry.pack.parts[part], bytearray(store.read(entry.stored_name))
    data[place.offset + place.size_bytes // 2] ^= 4
    store.replace(entry.stored_name, bytes(data))


def test_damaged_copies_of_parts_are_fetched_again(elsewhere: IndexDirectory, tmp_path: Path) -> None:
    take_over(elsewhere).close()
    for path in (tmp_path / "two" / "copies").rglob("*.part-*"):
        flip(path, path.stat().st_size // 2)
    with closing(take_over(elsewhere)) as writer:
        verify_the_rest(writer)


def test_copies_of_parts_go_with_their_object(elsewhere: IndexDirectory, tmp_path: Path) -> None:
    take_over(elsewhere).close()
    [entry] = newest(elsewhere).segments
    elsewhere.shard_store(0).remove(entry.stored_name)
    assert copied_bytes(tmp_path) == 0


@dataclass(frozen=True, slots=True)
class WatchedStore(LocalShardStore):
    """Does something of its own before it says where a file is: one action for each of the next calls."""

    actions: deque[Callable[[], object]] = field(default_factory=deque)

    def local_file(self, name: str, expected: FileDigest | None = None) -> Path:
        if self.actions:
            self.actions.popleft()()
        return LocalShardStore.local_file(self, name, expected)


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def pause() -> None:
    pass


@pytest.fixture
def deferred(index: IndexDirectory) -> tuple[DeferredSegment, WatchedStore]:
    """A deferred segment, of whose store the next call verifies the pack, and the second one maps it."""
    store = WatchedStore(Path(index.shard_store(0).address))
    return DeferredSegment(store, newest(index).segments[0], CentroidSets()), store


def run_to_the_end(late: LateVerification, segment: DeferredSegment) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not segment.is_whole:
        assert time.monotonic() < deadline
        late.go_on("shard", [segment])
        time.sleep(0.001)


def test_a_file_that_is_damaged_after_an_error_of_the_disk_is_refused(
    index: IndexDirectory, deferred: tuple[DeferredSegment, WatchedStore]
) -> None:
    """Its first look was good. The second one counts, because nothing has been read of the file so far."""
    (segment, store), late = deferred, LateVerification(after_error_seconds=0.0)
    store.actions.extend([pause, fail])
    with pytest.raises(OSError, match="Input/output error"):
        run_to_the_end(late, segment)
    damage(index, _DEFERRED)
    for _ in range(2):
        with pytest.raises(DamagedFile):
            run_to_the_end(late, segment)
    with pytest.raises(DamagedFile):
        segment.whole()


def test_after_an_error_of_the_disk_the_verification_ends_well(
    deferred: tuple[DeferredSegment, WatchedStore],
) -> None:
    (segment, store), late = deferred, LateVerification(after_error_seconds=0.0)
    store.actions.extend([pause, fail, fail])
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            run_to_the_end(late, segment)
    run_to_the_end(late, segment)
    assert segment.is_whole


def test_a_file_that_vanishes_when_it_has_been_verified_is_damage(
    index: IndexDirectory, deferred: tuple[DeferredSegment, WatchedStore]
) -> None:
    """As an error of the disk it would be waited out, for ever."""
    (segment, store), (_, path) = deferred, pack_of(index)
    store.actions.extend([pause, path.unlink])
    with pytest.raises(DamagedFile, match="it is missing"):
        run_to_the_end(LateVerification(), segment)


def test_damage_is_told_each_time(index: IndexDirectory) -> None:
    damage(index, _DEFERRED)
    with closing(take_over(index)) as writer:
        for _ in range(3):
            with pytest.raises(DamagedFile):
                verify_the_rest(writer)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until this is set, no file can be found for its late verification, as on a disk that hangs."""
    is_released, local_file = threading.Event(), LocalShardStore.local_file

    def wait_and_find(store: LocalShardStore, name: str, expected: FileDigest | None = None) -> Path:
        if threading.current_thread().name == THREAD:
            is_released.wait(_PATIENCE_SECONDS)
        return local_file(store, name, expected)

    monkeypatch.setattr(LocalShardStore, "local_file", wait_and_find)
    yield is_released
    is_released.set()


def verifying_threads() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


def test_shards_commit_while_a_disk_that_hangs_is_verified_and_share_one_thread(
    tmp_path: Path, held: threading.Event
) -> None:
    """For a consumer of 64 shards, 5 ms for each of them were a third of a second between its commits."""
    index, lanes = create_index(tmp_path, num_partitions=3), InlineLanes()
    for partition in index.partitions:
        fill(index, partition=partition)
    before = verifying_threads()
    writers = [take_over(index, partition, lanes=lanes) for partition in index.partitions]
    for writer in writers:
        writer.maintain()
        add(writer, [content("new")])
        writer.commit()
        assert not writer.is_verified
    assert verifying_threads() - before == 1
    held.set()
    for writer in writers:
        verify_the_rest(writer)
        writer.close()


def test_what_a_closed_shard_has_deferred_is_not_verified(
    index: IndexDirectory, held: threading.Event
) -> None:
    lanes = InlineLanes()
    with closing(take_over(index, lanes=lanes)) as writer:
        writer.maintain()
        segments = writer._current.state.deferred()
    held.set()
    lanes.close()
    assert segments
    assert not any(segment.is_whole for segment in segments)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ShardWriter]:
    """A writer that slept after its takeover, until another owner had merged and removed its segments."""
    index = create_index(tmp_path)
    fill(index, num_segments=2)
    lanes = InlineLanes()
    lanes.release(is_released=True)
    settings = WriterSettings(retain_for_seconds=0.0, merge=MergeSettings(2, max_dead_share=1.0))
    with closing(take_over(index)) as sleeper:
        paths = [pack_of(index, number)[1] for number in range(2)]
        owner = take_over(
            index, writer_id="owner", settings=settings, lanes=lanes, clock=lambda: time.time() + 3600
        )
        with closing(owner):
            merge_all(owner)
            for number in range(4):
                add(owner, [content(f"later-{number}")])
                owner.commit()
            owner._collected_at = 0.0
            owner.maintain()
        assert not any(path.exists() for path in paths)
        yield sleeper


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(verify_the_rest, id="verify"),
        pytest.param(lambda writer: add(writer, [patch("0-0", metadata={"colour": "red"})]), id="patch"),
    ],
)
def test_a_writer_whose_files_another_owner_has_removed_is_fenced(
    sleeper: ShardWriter, use: Callable[[ShardWriter], object]
) -> None:
    """The files are gone rightly. Damage would end the process, and ask for a person."""
    with pytest.raises(Fenced):
        use(sleeper)


def test_a_writer_that_finds_damage_which_a_repair_has_mended_is_fenced(tmp_path: Path) -> None:
    index = create_index(tmp_path)
    fill(index)
    good = newest(index).generation
    with closing(take_over(index)) as writer:
        add(writer, [content("large", thumbnail=random.Random(2).randbytes(2_000_000))])
        writer.commit()
    damage(index, _DEFERRED, number=1)
    with closing(take_over(index)) as writer:
        store = index.shard_store(0)
        plan = plan_repair(Inspection(store))
        assert plan is not None
        commit_restoration(store, plan, writer_id="repair")
        assert [entry.segment_id for entry in newest(index).segments] == [
            entry.segment_id for entry in read_manifest(store, good).segments
        ]
        with pytest.raises(Fenced):
            verify_the_rest(writer)


def test_a_merge_that_finds_damage_which_a_repair_has_mended_is_fenced(tmp_path: Path) -> None:
    index, lanes = create_index(tmp_path), InlineLanes()
    lanes.release(is_released=True)
    settings = WriterSettings(merge=MergeSettings(2, max_dead_share=1.0))
    with closing(take_over(index, settings=settings, lanes=lanes)) as writer:
        for content_id in ("small", "other"):
            add(writer, [content(content_id)])
            writer.commit()
        damage(index, _PART_OF_SMALL, number=1)
        plan = plan_repair(Inspection(index.shard_store(0)))
        assert plan is not None
        commit_restoration(index.shard_store(0), plan, writer_id="repair")
        with pytest.raises(Fenced):
            verify_and_merge(writer)


@contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    """What is open, and what is mapped, stays so."""
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)


def test_a_delta_whose_patch_cannot_be_read_changes_nothing_and_may_be_added_again(
    index: IndexDirectory,
) -> None:
    """Added twice, the delete would take the upload with it: that has the version of the deleted content."""
    with closing(take_over(index)) as writer:
        changes = [removal("new"), content("new", 1, version=5), patch("0-0", 2, metadata={"colour": "red"})]
        first = writer.next_offset
        delta = Delta(first, first + len(changes), changes)
        with no_file_can_be_opened(), pytest.raises(OSError, match="Too many open files"):
            writer.add(delta)
        writer.add(delta)
        writer.commit()
        known = open_state(index.shard_store(0), writer.manifest).find(["new", "0-0"])
        assert [one.live_row is not None for one in known.values()] == [True, True]


@pytest.mark.parametrize("place", ["memory", "versitygw"])
def test_an_object_that_was_cut_short_is_damage_and_no_reason_to_wait_for_its_store(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
) -> None:
    """What look-ups need lies behind its end. A store says no more of that than of its own faults."""
    bucket = memory_bucket() if place == "memory" else open_bucket(request.getfixturevalue("s3_url"))
    fill(create_index(object_store(bucket, "", tmp_path / "writer")))
    [key] = [key for key in bucket.list_all("") if key.endswith(".pack")]
    bucket.put(key, b"".join(bucket.chunks(key))[:_CUT_BYTES])
    index = IndexDirectory.open(object_store(bucket, "", tmp_path / "successor"))
    with pytest.raises(DamagedFile, match=key):
        take_over(index)
