"""The files of a shard in a directory, on a POSIX file system that has hard links."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from clip_index.errors import DamagedFile
from clip_index.storage.durable_files import (
    create_exclusively,
    fsync_path,
    has_hard_links,
    make_directory,
    remove_tree,
    replace_durably,
    replace_file,
    seal_file,
    write_file,
)
from clip_index.storage.file_digest import FileDigest, check_size, read_digest, verify_file
from clip_index.storage.mapped_part import MappedPart, map_file
from clip_index.storage.pack import PackPart
from clip_index.storage.regular_files import again_if_stale, check_folders, read_regular
from clip_index.storage.shard_store import UNFINISHED_PREFIX, CreationUnknown

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_REMOVED_WHILE_OPEN = ".nfs"
"""An NFS client renames a file so if it is removed on the machine that has it open, and removes it later.

Until then it cannot be removed, and it is nobody's.
"""


@dataclass(frozen=True, slots=True)
class LocalShardStore:
    """A `ShardStore` in one directory. Several processes may use the directory at once.

    Below `root` no link is followed, because one that leads elsewhere would have the writer remove what
    lies there. Without a `root` that holds below `path`.
    """

    path: Path
    root: Path | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def address(self) -> str:
        return str(self.path)

    @property
    def look_every_seconds(self) -> float:
        return 0.0

    @property
    def local_directory(self) -> Path:
        return self.path

    @property
    def missing_primitive(self) -> str:
        return f"the file system of {self.path} has no hard links"

    def address_of(self, name: str) -> str:
        return str(self.path / name)

    def below(self, folder: str) -> LocalShardStore:
        return LocalShardStore(self.path / folder, self.root or self.path)

    def can_create_exclusively(self) -> bool:
        return has_hard_links(self.path)

    def prepare(self, folders: Sequence[str]) -> None:
        for directory in (self.path, *(self.path / folder for folder in folders)):
            self._check_folders(directory)
            make_directory(directory)

    def create_exclusively(self, name: str, data: bytes) -> None:
        """Step 1 writes the data under a temporary name and fsyncs it. Step 2 links it to its
        name, which fails when the name is taken, where a rename would replace the file.
        Step 3 fsyncs the directory.
        """
        path = self._checked(name)
        temporary = path.with_name(f"{UNFINISHED_PREFIX}{path.name}-{uuid4().hex}")
        try:
            write_file(temporary, data)  # Step 1
            try:
                os.link(temporary, path)  # Step 2
            except OSError as error:
                self._confirm_link(name, data, error)
            try:
                fsync_path(path.parent)  # Step 3
            except OSError as error:
                raise CreationUnknown(f"the directory could not be fsynced: {error}") from error
        finally:
            with contextlib.suppress(OSError):  # an error behind the link must not look like one before it
                temporary.unlink()

    def _confirm_link(self, name: str, data: bytes, error: OSError) -> None:
        """Return if the link was made although it reported an error, as network file systems do.

        A missing file proves nothing, because the link may still be on its way. Only "no
        room" is a clear answer. It must count as one: the writer goes on, collects garbage
        and so makes room.
        """
        try:
            found = self.read(name)
        except FileNotFoundError:
            if isinstance(error, FileExistsError) or error.errno in _NO_ROOM:
                raise error from None
            raise CreationUnknown(str(error)) from error
        except OSError as unreadable:
            raise CreationUnknown(str(unreadable)) from error
        if found != data:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.address_of(name)) from error

    def ensure(self, name: str, data: bytes) -> None:
        if self.exists(name):  # whoever created it may have died before the fsync
            fsync_path((self.path / name).parent)
        else:
            create_exclusively(self.path / name, data)

    def renew(self, name: str, data: bytes) -> None:
        replace_durably(self._checked(name), data)

    def put(self, files: Mapping[str, bytes]) -> None:
        paths = {self._checked(name): data for name, data in files.items()}
        for path, data in paths.items():
            write_file(path, data)
        for directory in {path.parent for path in paths}:
            fsync_path(directory)

    def replace(self, name: str, data: bytes) -> None:
        replace_file(self._checked(name), data)

    def staging_path(self, name: str) -> Path:
        """Return a path beside the final one, because a rename cannot cross file systems."""
        path = self.path / name
        return path.with_name(f"{UNFINISHED_PREFIX}{path.name}")

    def publish(self, name: str) -> FileDigest:
        path, staged = self._checked(name), self.staging_path(name)
        seal_file(staged)
        digest = read_digest(staged)
        os.rename(staged, path)
        try:
            fsync_path(path.parent)
        except OSError:
            remove_tree(path)
            raise
        return digest

    def remove(self, name: str) -> None:
        remove_tree(self._checked(name))

    def remove_staged(self, name: str) -> None:
        remove_tree(self.staging_path(name))

    def list_names(self, folder: str = "") -> list[str]:
        self._check_folders(self.path / folder)
        try:
            names = again_if_stale(partial(os.listdir, self.path / folder))
        except FileNotFoundError:
            return []
        return [name for name in names if not name.startswith(_REMOVED_WHILE_OPEN)]

    def list_times(self, folder: str = "") -> Mapping[str, float]:
        """Leave out what vanishes during the listing."""
        times = {}
        for name in self.list_names(folder):
            with contextlib.suppress(FileNotFoundError):
                times[name] = again_if_stale((self.path / folder / name).lstat).st_mtime
        return times

    def seconds_ahead(self) -> float:
        """Look at the time of a file that is created for it. On a full disk, at the directory itself."""
        probe = self._checked(f"{UNFINISHED_PREFIX}clock-{uuid4().hex}")
        try:
            probe.touch(exist_ok=False)
            return probe.stat().st_mtime - time.time()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return self._time_without_room() - time.time()
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    def _time_without_room(self) -> float:
        """Renew the time of the directory, which takes no room. It goes on, so that files grow old."""
        try:
            os.utime(self.path)
            return self.path.stat().st_mtime
        except OSError:
            return time.time()

    def exists(self, name: str) -> bool:
        """Ask by a text, because `pathlib` would take ten times as long as the system."""
        try:
            os.stat(f"{self.path}/{name}")
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return False
        return True

    def look_for(self, name: str) -> Callable[[], bool]:
        """Return a call of the system with its path made up beforehand, which takes half of the time."""
        return partial(os.access, f"{self.path}/{name}", os.F_OK)

    def read(self, name: str) -> bytes:
        self._check_folders(f"{self.path}/{name}".rpartition("/")[0])
        return read_regular(f"{self.path}/{name}")

    def local_file(self, name: str, expected: FileDigest | None = None) -> Path:
        """Check only the folders of this store, because readers ask for hundreds of files at once."""
        path = self.path / name
        check_folders(self.path, path.parent)
        return path

    def has_local(self, name: str, expected: FileDigest) -> bool:
        return True

    def local_part(self, name: str, whole: FileDigest, part: PackPart) -> MappedPart:
        path = self.local_file(name)
        check_size(path, whole)
        return map_file(path).part(part)

    def holds(self, name: str, expected: FileDigest) -> bool:
        try:
            verify_file(self._checked(name), expected)
        except (FileNotFoundError, NotADirectoryError, DamagedFile):
            return False
        return True

    def forget_copy(self, path: Path) -> bool:
        return False

    def keep_local(self, user: str, names: Collection[str]) -> None:
        """Every file stays where it is."""

    def _checked(self, name: str) -> Path:
        """Return the path of a file that is about to be read or written; its folders are no links."""
        path = self.path / name
        self._check_folders(path.parent)
        return path

    def _check_folders(self, folder: Path | str) -> None:
        check_folders(self.root or self.path, folder)
