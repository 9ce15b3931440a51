"""What the index asks of whatever holds its files.

`LocalShardStore` keeps them in a directory, `ObjectShardStore` in an object store, with local copies of
what is mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from clip_index.storage.file_digest import FileDigest
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import PackPart

UNFINISHED_PREFIX = ".tmp-"
"""A listing may show unfinished writes. Their names begin so."""


class CreationUnknown(Exception):
    """The file may or may not have been created, or may not survive a power cut.

    Deliberately no `OSError`: after an `OSError` nothing was created, so the caller may
    remove the files that the new one would have named. After this error it must not.
    """


class StoreTrouble(OSError):
    """A request to a store over the network failed. Its text is a sentence, without the number."""

    def __str__(self) -> str:
        return str(self.strerror)


class StoreUnreachable(StoreTrouble):
    """The store does not answer, or answers that it cannot now: transient."""


class StoreRefused(StoreTrouble):
    """The store answers that it will not: no such bucket, wrong credentials. A person must help."""


class ShardStore(Protocol):
    """The files of one shard, or of the whole index with its shards in folders.

    Names are relative to the store and use `/` between folder and file.

    Every method may raise `OSError`, which is transient unless a subclass says otherwise: the
    caller may try again later. A file never changes once it is visible, except by `replace`.
    """

    @property
    def name(self) -> str:
        """The store's own name, which for a shard is the shard's."""
        ...

    @property
    def address(self) -> str:
        """Where the store is, as a message tells it to a person; no other store has the same."""
        ...

    @property
    def look_every_seconds(self) -> float:
        """How long a reader waits between two looks that it could make more often, where looks cost money.

        0 in a directory. The next generation's manifest does not count: readers ask for it at any time.
        """
        ...

    @property
    def local_directory(self) -> Path:
        """This machine's directory for files that are no part of the index. `prepare` makes it."""
        ...

    @property
    def missing_primitive(self) -> str:
        """What the store lacks if `can_create_exclusively` is false, as a message says it."""
        ...

    def address_of(self, name: str) -> str:
        """Return where a file is, as a message tells it to a person."""
        ...

    def below(self, folder: str) -> ShardStore:
        """Return the store of the files in a folder of this one."""
        ...

    def can_create_exclusively(self) -> bool:
        """Try whether the store really has the exclusive creation that commits rest on.

        Raises `OSError` if it takes no writes now, which says nothing about that.
        """
        ...

    def prepare(self, folders: Sequence[str]) -> None:
        """Make the store and these folders ready for writes, durably. A second call does no harm."""
        ...

    def create_exclusively(self, name: str, data: bytes) -> None:
        """Create a file in one atomic step, unless the name is taken.

        Either the file is visible, whole and durable when this returns; or this raises:
        `FileExistsError` (the name holds other bytes, or held a file until just now), another
        `OSError` (nothing was created), `CreationUnknown` (only a later look can tell).

        A store whose own request was answered with an error reads the name back: if it holds
        `data`, the request was carried out and this call created the file. So `data` must
        contain something that no other caller writes, such as a nonce.
        """
        ...

    def ensure(self, name: str, data: bytes) -> None:
        """Create a file unless the name is taken. It is durable on return, whoever created it."""
        ...

    def renew(self, name: str, data: bytes) -> None:
        """Create a file, or write it again with the same bytes. It is durable and young on return.

        Whoever removes old files looks at its age, so it stays for as long as a new one.
        """
        ...

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write small files under names that nobody has used. All are durable on return.

        After an `OSError` some of them may be there. They are garbage.
        """
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write or replace a file. A reader sees the old bytes or the new ones, never a mixture.

        Not durable: after a power cut the file may hold old bytes or be empty.
        """
        ...

    def staging_path(self, name: str) -> Path:
        """Return a local path at which libraries may build the file `name`.

        The caller creates it. It is on this machine alone until `publish`, and no reader sees it.
        """
        ...

    def publish(self, name: str) -> FileDigest:
        """Make the file built at `staging_path(name)` visible under its name; return its digest.

        The file is whole and durable when this returns. After an `OSError` the store has removed
        what it could; what is left is garbage.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with its files. Does nothing if it is already gone."""
        ...

    def remove_staged(self, name: str) -> None:
        """Remove what lies at `staging_path(name)`. Does nothing if it is already gone."""
        ...

    def list_names(self, folder: str = "") -> list[str]:
        """Return the names in a folder, in any order. A missing folder is empty.

        Whatever was created before the call began is listed: commits rest on this.
        """
        ...

    def list_times(self, folder: str = "") -> Mapping[str, float]:
        """Return the names in a folder, and when each was last modified (seconds since 1970)."""
        ...

    def seconds_ahead(self) -> float:
        """Return how far the clock that dates the files is ahead of this machine's, as `time.time` tells it.

        On a shared file system the server's clock dates them. An age is the difference of two times of
        one clock, so whoever computes one corrects its own time by this.
        """
        ...

    def exists(self, name: str) -> bool:
        """Tell whether the file is visible. Cheap: readers ask several times a second."""
        ...

    def look_for(self, name: str) -> Callable[[], bool]:
        """Return a question for readers who ask a hundred times a second whether the file is visible.

        Any thread may ask it. In a directory that cannot be read the answer is False; in a bucket it may
        raise what `exists` raises.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; `FileNotFoundError` if there is none."""
        ...

    def local_file(self, name: str, expected: FileDigest | None = None) -> Path:
        """Return a local file that holds these bytes, for mapping. It is read-only.

        A store that fetches the file compares it with `expected`, if the caller knows that, while it
        arrives. It raises `DamagedFile` if it holds other bytes itself. A file that was there before is
        verified by the caller. If there is no such file, opening the path raises `FileNotFoundError`, or
        this does.
        """
        ...

    def has_local(self, name: str, expected: FileDigest) -> bool:
        """Tell whether this machine has the file, of the expected size, so `local_file` fetches nothing."""
        ...

    def local_part(self, name: str, whole: FileDigest, part: PackPart) -> MappedPart:
        """Map a part of a file. A store that would have to fetch the file fetches this part alone.

        It compares what it fetches with the part's digest, and raises `DamagedFile`. What was there before
        is verified by the caller.
        """
        ...

    def holds(self, name: str, expected: FileDigest) -> bool:
        """Read the file where it is stored, not a local copy, and tell whether it has these bytes.

        False if there is no such file.
        """
        ...

    def forget_copy(self, path: Path) -> bool:
        """Remove a local copy that is damaged, so that the next `local_file` fetches the file again.

        False if `path` is the only one there is.
        """
        ...

    def keep_local(self, user: str, names: Collection[str]) -> None:
        """Say which files a user of this process has open. It replaces what that user has said before.

        This raises nothing. Their local copies are the last to be removed when room is needed. A mapped file
        stays valid when its copy is removed, but whoever opens it anew must fetch it anew.
        """
        ...
