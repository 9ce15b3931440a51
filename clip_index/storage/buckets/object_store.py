"""The files of a shard as objects of a bucket, with local copies of what is mapped.

Commits rest on two promises of the bucket: a put that fails if the object exists, and a listing that shows
every object that was put before. Nothing is locked, copied or renamed.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from clip_index.errors import DamagedFile
from clip_index.storage.buckets.file_cache import FileCache, part_name
from clip_index.storage.buckets.object_bucket import ObjectBucket
from clip_index.storage.durable_files import remove_tree
from clip_index.storage.file_digest import FileDigest, digest_of_chunks, read_digest
from clip_index.storage.mapped_part import MappedPart, map_file
from clip_index.storage.pack import PackPart
from clip_index.storage.shard_store import (
    UNFINISHED_PREFIX,
    CreationUnknown,
    StoreRefused,
    StoreUnreachable,
)

_MAX_CREATIONS = 5
_PAUSE_SECONDS = 0.05
_LOOK_EVERY_SECONDS = 5.0
_CLOCK_GOOD_FOR_SECONDS = 600.0

_ResultT = TypeVar("_ResultT")


class StoreClock:
    """How far the store's clock is ahead, asked for once in ten minutes: it costs three requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[float, float] | None = None

    def seconds_ahead(self, ask: Callable[[], float]) -> float:
        with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known[1] > _CLOCK_GOOD_FOR_SECONDS:
                self._known = (ask(), now)
            return self._known[0]


@dataclass(frozen=True, slots=True)
class ObjectShardStore:
    """A `ShardStore` below a prefix of a bucket. Several machines may use it at once."""

    bucket: ObjectBucket
    cache: FileCache
    prefix: str = ""
    clock: StoreClock = field(default_factory=StoreClock, compare=False)

    @property
    def name(self) -> str:
        return self.address.rsplit("/", 1)[-1]

    @property
    def address(self) -> str:
        return self.bucket.address_of(self.prefix) if self.prefix else self.bucket.url

    @property
    def look_every_seconds(self) -> float:
        return _LOOK_EVERY_SECONDS

    @property
    def local_directory(self) -> Path:
        return self.cache.local / self.prefix

    @property
    def missing_primitive(self) -> str:
        return f"{self.address} overwrites an object that a put should keep (If-None-Match)"

    def address_of(self, name: str) -> str:
        return self.bucket.address_of(self._key(name))

    def below(self, folder: str) -> ObjectShardStore:
        return ObjectShardStore(self.bucket, self.cache, self._key(folder), self.clock)

    def can_create_exclusively(self) -> bool:
        """Put one object twice. A store that does not know the condition takes the second one."""
        key = self._key(f"{UNFINISHED_PREFIX}probe-{uuid4().hex}")
        try:
            self.bucket.put(key, b"first")
            self.bucket.put_if_absent(key, b"second")
            return False
        except FileExistsError:
            return b"first" in (self.bucket.get(key), self.bucket.get(key))  # one answer may be wrong
        finally:
            self.bucket.delete([key])

    def prepare(self, folders: Sequence[str]) -> None:
        """A bucket has no folders. Only this machine's own directory is made."""
        self.local_directory.mkdir(parents=True, exist_ok=True)

    def create_exclusively(self, name: str, data: bytes) -> None:
        """Put the object if it is absent, and read it whenever the answer is not a plain success.

        "Exists" is never believed: a conflict that stored nothing is reported so, and so is this call's
        own success, when its answer was lost and the request repeated. What is read decides: `data` is
        ours, other bytes are another writer's. If nothing is there the put is repeated, a few times.
        That is safe, because a former request that is still on its way puts the same bytes.
        """
        failure: OSError | None = None
        for _ in range(_MAX_CREATIONS):
            try:
                self.bucket.put_if_absent(self._key(name), data)
                return
            except StoreRefused as error:
                if failure is None:
                    raise
                raise CreationUnknown(f"{failure}; then {error}") from error
            except (FileExistsError, StoreUnreachable) as error:
                failure = error
            found = self._find_created(name, failure)
            if found == data:
                return
            if found is not None:
                raise FileExistsError(errno.EEXIST, "another writer's", self.address_of(name)) from failure
            time.sleep(_PAUSE_SECONDS)
        raise CreationUnknown(str(failure)) from failure

    def _find_created(self, name: str, failure: Exception) -> bytes | None:
        """Return what the store holds under a name that a put has failed for; None if nothing."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None
        except OSError as unreadable:
            raise CreationUnknown(f"{failure}; it cannot be read: {unreadable}") from failure

    def ensure(self, name: str, data: bytes) -> None:
        """An object that is there is durable, whoever has put it."""
        if self.exists(name):
            return
        try:
            with suppress(FileExistsError):
                self.create_exclusively(name, data)
        except CreationUnknown as error:
            raise StoreUnreachable(None, str(error)) from error

    def renew(self, name: str, data: bytes) -> None:
        self.bucket.put(self._key(name), data)

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.bucket.put(self._key(name), data)

    def replace(self, name: str, data: bytes) -> None:
        self.bucket.put(self._key(name), data)

    def staging_path(self, name: str) -> Path:
        return self.cache.staged(self._key(name))

    def publish(self, name: str) -> FileDigest:
        """Upload the file, and keep it as a local copy, because it is mapped next."""
        staged, key = self.staging_path(name), self._key(name)
        digest = read_digest(staged)
        try:
            self.bucket.upload(key, staged)
        except OSError:
            _try(partial(self.bucket.delete, [key]))
            raise
        self.cache.adopt(staged, key)
        return digest

    def remove(self, name: str) -> None:
        """Delete an object, or those below a folder. To ask which it is costs less than to list."""
        key = self._key(name)
        if self.exists(name):
            self.bucket.delete([key])
        else:
            self.bucket.delete(list(self.bucket.list_all(key)))
        self.cache.remove(key)

    def remove_staged(self, name: str) -> None:
        remove_tree(self.staging_path(name))

    def list_names(self, folder: str = "") -> list[str]:
        """Nothing is believed only when it was listed twice.

        The client takes any answer for an empty listing that has a status of 200 and none of its elements,
        such as an error's text or the page of a proxy.
        """
        return self.bucket.list_level(self._key(folder)) or self.bucket.list_level(self._key(folder))

    def list_times(self, folder: str = "") -> Mapping[str, float]:
        """A folder has the time of its newest object."""
        prefix = self._key(folder)
        times: dict[str, float] = {}
        for key, facts in self.bucket.list_all(prefix).items():
            child = key.removeprefix(prefix).lstrip("/").split("/")[0]
            times[child] = max(times.get(child, 0.0), facts.modified_at)
        return times

    def seconds_ahead(self) -> float:
        return self.clock.seconds_ahead(self._ask_for_clock)

    def _ask_for_clock(self) -> float:
        key = self._key(f"{UNFINISHED_PREFIX}clock-{uuid4().hex}")
        try:
            self.bucket.put(key, b"")
            return self.bucket.facts_of(key).modified_at - time.time()
        finally:
            _try(partial(self.bucket.delete, [key]))

    def look_for(self, name: str) -> Callable[[], bool]:
        return partial(self.exists, name)

    def exists(self, name: str) -> bool:
        try:
            self.bucket.facts_of(self._key(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        return self.bucket.get(self._key(name))

    def local_file(self, name: str, expected: FileDigest | None = None) -> Path:
        key = self._key(name)
        found = self.cache.find(key, expected)
        if found is None:
            found = self._fetch(key, name, lambda: self.bucket.chunks(key), expected)
        return found

    def _fetch(
        self, copy: str, name: str, read: Callable[[], Iterator[bytes]], expected: FileDigest | None
    ) -> Path:
        """Fetch a copy. Other bytes than expected are fetched again, once: a single answer may be wrong."""
        try:
            return self.cache.fetch(copy, self.address_of(name), read(), expected)
        except DamagedFile:
            return self.cache.fetch(copy, self.address_of(name), read(), expected)

    def has_local(self, name: str, expected: FileDigest) -> bool:
        return self.cache.find(self._key(name), expected) is not None

    def local_part(self, name: str, whole: FileDigest, part: PackPart) -> MappedPart:
        """A part has a copy of its own, beside those of whole objects."""
        key = self._key(name)
        copy = self.cache.find(key, whole)
        if copy is not None:
            return map_file(copy).part(part)
        name_of_part = part_name(key, part.offset)
        expected = None if part.xxh3_128 is None else FileDigest(part.size_bytes, part.xxh3_128)
        found = self.cache.find(name_of_part, expected)
        if found is None:
            read = partial(self.bucket.chunks_of_range, key, part.offset, part.end)
            found = self._fetch(name_of_part, name, read, expected)
        return map_file(found)

    def holds(self, name: str, expected: FileDigest) -> bool:
        """Look at the size first, because the bytes of a large object take long to arrive."""
        key = self._key(name)
        try:
            if self.bucket.facts_of(key).size_bytes != expected.size_bytes:
                return False
            return digest_of_chunks(self.bucket.chunks(key)) == expected
        except FileNotFoundError:
            return False

    def forget_copy(self, path: Path) -> bool:
        key = self.cache.name_of(path)
        if key is None:
            return False
        self.cache.remove(key)
        return True

    def keep_local(self, user: str, names: Collection[str]) -> None:
        self.cache.keep(f"{self.prefix} {user}", {self._key(name) for name in names})

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.prefix, name) if part)


def _try(action: Callable[[], object]) -> None:
    """Clean up behind an error, which a second one must not hide."""
    with suppress(OSError):
        action()
