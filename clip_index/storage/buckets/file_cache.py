"""Local copies of objects, for mapping: a directory that the processes of a machine share.

```
copies/<name of the object>      read-only; each is whole, because it gets its name by a rename
processes/<random>/lock          held for the life of a process (flock)
processes/<random>/open          the copies that the process has open, one name a line
processes/<random>/incoming/     what it is fetching
processes/<random>/staged/       what it is building
local/                           files of this machine that are no copies; they are never removed here
```

A process that dies releases its lock, and the next sweep of any other process removes what it left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog
import xxhash

from clip_index.errors import DamagedFile
from clip_index.storage.durable_files import READ_ONLY, remove_tree
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.regular_files import regular_size
from clip_index.storage.shard_store import StoreTrouble

_YOUNG_SECONDS = 60.0
"""A copy that was used within this time stays: its user has not said yet that it is open."""
_SWEEPS_FOR_BOUND = 20
"""A sweep follows when copies of one such part of the bound were added."""
_PART = ".part-"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Copy:
    name: str
    size_bytes: int
    used_at: float


def part_name(name: str, offset: int) -> str:
    """Return the name of the copy of a part of an object."""
    return f"{name}{_PART}{offset}"


class FileCache:
    """Thread-safe. All methods raise `OSError`, which tells of this machine's disk."""

    def __init__(self, directory: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._clock = clock
        self._mutex = threading.RLock()
        self._own: _OwnFolder | None = None
        self._open: dict[str, frozenset[str]] = {}
        self._added_bytes = max_bytes  # so that the first copy sweeps
        self._is_over = False

    @property
    def local(self) -> Path:
        return self.directory / "local"

    def staged(self, name: str) -> Path:
        """Return a path at which a file or folder may be built; the folder above it is there."""
        path = self._folder().path / "staged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def find(self, name: str, expected: FileDigest | None) -> Path | None:
        """Return the copy if there is one, of the expected size, and note that it is used."""
        path = self._path(name)
        try:
            size_bytes = regular_size(path)
            if expected is not None and size_bytes != expected.size_bytes:
                return None
            os.utime(path, (self._clock(), self._clock()))
        except (FileNotFoundError, NotADirectoryError, DamagedFile):
            return None
        return path

    def fetch(self, name: str, address: str, chunks: Iterable[bytes], expected: FileDigest | None) -> Path:
        """Write a copy and compare it with `expected` while it arrives; `DamagedFile` names the `address`.

        On a full disk this removes every copy that is not open, and raises an `OSError` that says so.
        """
        incoming = self._folder().path / "incoming" / uuid4().hex
        try:
            _write_compared(incoming, address, chunks, expected)
            return self.adopt(incoming, name)
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.sweep(max_bytes=0)
                raise _disk_full(self.directory) from error
            raise
        finally:
            with contextlib.suppress(OSError):
                incoming.unlink()

    def adopt(self, path: Path, name: str) -> Path:
        """Make a file of the same directory the copy of an object, by a rename."""
        size_bytes = path.stat().st_size
        path.chmod(READ_ONLY & path.stat().st_mode)
        copy = self._path(name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.utime(path, (self._clock(), self._clock()))
        os.replace(path, copy)
        with self._mutex:
            self._added_bytes += size_bytes
            is_due = self._added_bytes * _SWEEPS_FOR_BOUND >= self.max_bytes
        if is_due:
            self.sweep()
        return copy

    def remove(self, name: str) -> None:
        """Remove a copy with those of its parts, or a folder of copies. Does nothing if there is none."""
        path = self._path(name)
        remove_tree(path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for one in os.listdir(path.parent):
                if one.startswith(f"{path.name}{_PART}"):
                    remove_tree(path.parent / one)

    def name_of(self, path: Path) -> str | None:
        """Return of which object a path is the copy; None if it is no copy."""
        try:
            return path.relative_to(self.directory / "copies").as_posix()
        except ValueError:
            return None

    def keep(self, user: str, names: Collection[str]) -> None:
        """Say which copies a user of this process has open. Raises nothing: it follows a commit."""
        with self._mutex:
            if self._open.get(user, frozenset()) == frozenset(names):
                return
            if names:
                self._open[user] = frozenset(names)
            else:
                self._open.pop(user, None)
            try:
                self._folder().write_open(frozenset().union(*self._open.values()))
            except OSError as error:  # other processes may remove what this one has open: it fetches it anew
                _log.warning("the cache's list of open copies cannot be written", error=str(error))

    def sweep(self, max_bytes: int | None = None) -> None:
        """Remove what dead processes left, then copies that nobody has open, the longest unused first."""
        bound = self.max_bytes if max_bytes is None else max_bytes
        with self._mutex, self._alone():
            self._added_bytes = 0
            needed = self._open_anywhere()
            copies = sorted(self._copies(), key=lambda copy: copy.used_at)
            num_bytes = sum(copy.size_bytes for copy in copies)
            young_since = self._clock() - _YOUNG_SECONDS
            for copy in copies:
                if num_bytes <= bound or copy.used_at > young_since:
                    break
                if copy.name not in needed:
                    self.remove(copy.name)
                    num_bytes -= copy.size_bytes
            self._note_size(num_bytes)

    def _note_size(self, num_bytes: int) -> None:
        is_over = num_bytes > self.max_bytes
        if is_over and not self._is_over:
            _log.warning(
                "the index's cache is smaller than what is open",
                directory=str(self.directory),
                cache_bytes=num_bytes,
                max_bytes=self.max_bytes,
            )
        self._is_over = is_over

    def _copies(self) -> Iterator[_Copy]:
        top = self.directory / "copies"
        for folder, _, files in os.walk(top):
            for file_name in files:
                path = Path(folder) / file_name
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    yield _Copy(path.relative_to(top).as_posix(), status.st_size, status.st_mtime)

    def _open_anywhere(self) -> set[str]:
        """Return the copies that a living process has open. What a dead one left is removed."""
        needed: set[str] = set().union(*self._open.values())
        for folder in (self.directory / "processes").glob("*"):
            if self._own is not None and folder == self._own.path:
                continue
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                needed.update(_read_open(folder))
        return needed

    def _path(self, name: str) -> Path:
        return self.directory / "copies" / name

    def _folder(self) -> _OwnFolder:
        with self._mutex:
            if self._own is None:
                with self._alone():  # no sweep may take the folder for an abandoned one before it is locked
                    self._own = _OwnFolder.create(self.directory / "processes" / uuid4().hex)
            return self._own

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the sweeps of other processes out."""
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class _OwnFolder:
    """This process's folder in the cache. The lock ends with the process, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path) -> _OwnFolder:
        for folder in ("incoming", "staged"):
            (path / folder).mkdir(parents=True)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return cls(path, descriptor)

    def write_open(self, names: Collection[str]) -> None:
        temporary = self.path / "open.new"
        temporary.write_text("".join(f"{name}\n" for name in sorted(names)))
        os.replace(temporary, self.path / "open")


def _disk_full(directory: Path) -> StoreTrouble:
    """One sentence, the same each time, because a log shows a failure once as long as its text stays."""
    return StoreTrouble(errno.ENOSPC, f"the disk of the index's cache, {directory}, is full")


def _is_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _read_open(folder: Path) -> list[str]:
    try:
        return (folder / "open").read_text().splitlines()
    except OSError:
        return []


def _write_compared(path: Path, address: str, chunks: Iterable[bytes], expected: FileDigest | None) -> None:
    digest, size_bytes = xxhash.xxh3_128(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            size_bytes += len(chunk)
            if expected is not None and size_bytes > expected.size_bytes:
                raise DamagedFile(address, f"more than {expected.size_bytes} bytes")
            digest.update(chunk)
            file.write(chunk)
    actual = FileDigest(size_bytes, digest.hexdigest())
    if expected is not None and actual != expected:
        raise DamagedFile(address, f"{actual}, expected {expected}")
