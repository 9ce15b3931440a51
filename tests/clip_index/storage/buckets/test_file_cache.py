"""Local copies of objects: what arrives, what stays and what goes, also with several processes."""

from __future__ import annotations

import errno
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from clip_index.errors import DamagedFile
from clip_index.storage.buckets import file_cache
from clip_index.storage.buckets.file_cache import FileCache
from clip_index.storage.file_digest import digest_of
from clip_index.storage.shard_store import StoreTrouble

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache_of(tmp_path: Path, clock: Clock, max_bytes: int = 1000) -> FileCache:
    return FileCache(tmp_path / "cache", max_bytes, clock)


def fetch(cache: FileCache, name: str, data: bytes) -> Path:
    return cache.fetch(name, f"s3://bucket/{name}", [data[:3], data[3:]], digest_of(data))


def test_a_copy_is_found_by_name_and_size(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    path = fetch(cache, "segments/a", b"rows of a")
    assert path.read_bytes() == b"rows of a"
    assert not path.stat().st_mode & 0o222
    assert cache.find("segments/a", digest_of(b"rows of a")) == path
    assert cache.find("segments/a", None) == path
    assert cache.find("segments/a", digest_of(b"other")) is None
    assert cache.find("segments/b", None) is None


@pytest.mark.parametrize("data", [b"rows of b", b"short", b"longer than it should be"])
def test_what_arrives_is_compared_and_other_bytes_leave_no_copy(
    tmp_path: Path, clock: Clock, data: bytes
) -> None:
    cache = cache_of(tmp_path, clock)
    with pytest.raises(DamagedFile, match=r"s3://bucket/segments/a"):
        cache.fetch("segments/a", "s3://bucket/segments/a", [data], digest_of(b"rows of a"))
    assert cache.find("segments/a", None) is None
    assert [path for path in (tmp_path / "cache").rglob("*") if "incoming/" in str(path)] == []


def test_a_store_that_breaks_off_leaves_no_copy(tmp_path: Path, clock: Clock) -> None:
    def chunks():  # type: ignore[no-untyped-def]
        yield b"row"
        raise OSError(errno.EHOSTUNREACH, "away")

    cache = cache_of(tmp_path, clock)
    with pytest.raises(OSError, match="away"):
        cache.fetch("segments/a", "s3://bucket/segments/a", chunks(), digest_of(b"rows of a"))
    assert cache.find("segments/a", None) is None


def test_the_longest_unused_copies_go_first(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    for name in "abc":
        fetch(cache, name, bytes(400))
        clock.now += HOUR
    assert cache.find("a", None) is None
    assert cache.find("b", None) is not None
    clock.now += HOUR
    fetch(cache, "d", bytes(400))
    assert cache.find("b", None) is not None, "it was used since"
    assert cache.find("c", None) is None


def test_what_is_open_stays_even_beyond_the_bound(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    for name in "abc":
        fetch(cache, name, bytes(400))
        cache.keep("reader", {"a", name})
        clock.now += HOUR
    fetch(cache, "d", bytes(400))
    assert [name for name in "abcd" if cache.find(name, None)] == ["a", "c", "d"]


def test_what_was_used_a_moment_ago_stays_because_it_may_be_opened_next(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    for name in "abcd":
        fetch(cache, name, bytes(400))
    assert all(cache.find(name, None) for name in "abcd")


def test_each_user_keeps_what_it_has_open(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    for name, user in (("a", "reader"), ("b", "writer")):
        fetch(cache, name, bytes(400))
        cache.keep(user, {name})
    clock.now += HOUR
    cache.keep("reader", set())
    fetch(cache, "c", bytes(400))
    assert [name for name in "abc" if cache.find(name, None)] == ["b", "c"]


def test_a_mapped_copy_stays_valid_when_it_is_removed(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    path = fetch(cache, "a", b"rows of a")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        cache.remove("a")
        assert bytes(mapped) == b"rows of a"


_OTHER_PROCESS = """
import sys
from pathlib import Path
from clip_index.storage.buckets.file_cache import FileCache
cache = FileCache(Path(sys.argv[1]), 1000)
cache.keep("reader", {"a"})
cache.staged("segments/half").write_bytes(b"half")
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_another_process_has_open_stays_until_that_process_ends(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    fetch(cache, "a", bytes(400))
    clock.now += HOUR
    other = subprocess.Popen(
        [sys.executable, "-c", _OTHER_PROCESS, str(cache.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    fetch(cache, "b", bytes(400))
    fetch(cache, "c", bytes(400))
    copy = cache.directory / "copies" / "a"
    assert copy.exists()
    other.kill()
    other.wait()
    for pipe in (other.stdin, other.stdout):
        pipe.close()
    cache.sweep()
    assert not copy.exists()
    assert list(cache.directory.glob("processes/*/staged/segments")) == [], "its unfinished files are gone"


def test_a_full_disk_is_told_in_one_sentence_and_frees_what_is_not_open(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(tmp_path, clock)
    for name in "ab":
        fetch(cache, name, bytes(400))
    cache.keep("reader", {"a"})
    clock.now += HOUR

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/random/name")

    with monkeypatch.context() as patched:
        patched.setattr(file_cache, "_write_compared", full)
        with pytest.raises(StoreTrouble) as told:
            fetch(cache, "c", bytes(400))
    assert str(told.value) == f"the disk of the index's cache, {cache.directory}, is full"
    assert told.value.errno == errno.ENOSPC
    assert [name for name in "ab" if cache.find(name, None)] == ["a"]
    fetch(cache, "c", bytes(400))


def test_a_list_of_open_copies_that_cannot_be_written_fails_nothing(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    fetch(cache, "a", b"rows of a")
    [folder] = (cache.directory / "processes").iterdir()
    (folder / "open.new").mkdir()
    cache.keep("reader", {"a"})


def test_a_path_tells_of_which_object_it_is_the_copy(tmp_path: Path, clock: Clock) -> None:
    cache = cache_of(tmp_path, clock)
    assert cache.name_of(fetch(cache, "segments/a", b"rows of a")) == "segments/a"
    assert cache.name_of(tmp_path / "elsewhere") is None
