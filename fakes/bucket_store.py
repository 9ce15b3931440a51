"""A shard store without a directory: objects in memory, put if absent, listed, and cached as local files."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_index.storage.durable_files import remove_tree
from clip_index.storage.file_digest import FileDigest, digest_of


@dataclass(frozen=True)
class StoredObject:
    data: bytes
    modified_at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Bucket:
    """What all stores of a bucket share, as processes share a service."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class BucketStore:
    """Implements `ShardStore`. `cache` is this machine's directory for staged and mapped files."""

    bucket: Bucket
    prefix: str
    cache: Path

    @property
    def name(self) -> str:
        return self.prefix.rsplit("/", 1)[-1]

    @property
    def address(self) -> str:
        return f"bucket://{self.prefix}"

    def address_of(self, name: str) -> str:
        return f"{self.address}/{name}"

    def below(self, folder: str) -> BucketStore:
        return BucketStore(self.bucket, f"{self.prefix}/{folder}", self.cache)

    def can_create_exclusively(self) -> bool:
        return True

    def prepare(self, folders: Sequence[str]) -> None:
        for folder in folders:
            self.staging_path(f"{folder}/any").parent.mkdir(parents=True, exist_ok=True)

    def create_exclusively(self, name: str, data: bytes) -> None:
        if not self._put_if_absent(name, data):
            raise FileExistsError(self.address_of(name))

    def ensure(self, name: str, data: bytes) -> None:
        self._put_if_absent(name, data)

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.replace(name, data)

    def replace(self, name: str, data: bytes) -> None:
        with self.bucket.lock:
            self.bucket.objects[self._key(name)] = StoredObject(data)

    def staging_path(self, name: str) -> Path:
        return self.cache / "staged" / self._key(name)

    def publish(self, name: str) -> FileDigest:
        staged = self.staging_path(name)
        data = staged.read_bytes()
        self.put({name: data})
        remove_tree(staged)
        return digest_of(data)

    def remove(self, name: str) -> None:
        with self.bucket.lock:
            for key in [*self._keys_below(name), self._key(name)]:
                self.bucket.objects.pop(key, None)

    def remove_staged(self, name: str) -> None:
        remove_tree(self.staging_path(name))

    def list_names(self, folder: str = "") -> list[str]:
        return list(self.list_times(folder))

    def seconds_ahead(self) -> float:
        return 0.0

    def list_times(self, folder: str = "") -> Mapping[str, float]:
        times: dict[str, float] = {}
        with self.bucket.lock:
            for key in self._keys_below(folder):
                child = key.removeprefix(self._key(folder).rstrip("/") + "/").split("/")[0]
                times[child] = max(times.get(child, 0.0), self.bucket.objects[key].modified_at)
        return times

    def exists(self, name: str) -> bool:
        return self._key(name) in self.bucket.objects

    def read(self, name: str) -> bytes:
        found = self.bucket.objects.get(self._key(name))
        if found is None:
            raise FileNotFoundError(self.address_of(name))
        return found.data

    def local_file(self, name: str) -> Path:
        path = self.cache / "mapped" / self._key(name)
        if not path.exists():
            data = self.read(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o444)
        return path

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _keys_below(self, folder: str) -> Iterator[str]:
        start = self._key(folder).rstrip("/") + "/"
        return (key for key in list(self.bucket.objects) if key.startswith(start))

    def _put_if_absent(self, name: str, data: bytes) -> bool:
        with self.bucket.lock:
            if self._key(name) in self.bucket.objects:
                return False
            self.bucket.objects[self._key(name)] = StoredObject(data)
            return True
