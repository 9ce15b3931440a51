"""What holds the indexes of a root: a directory, or a bucket with local copies."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import xxhash

from clip_index.storage.buckets.file_cache import FileCache
from clip_index.storage.buckets.object_bucket import open_bucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore, StoreRefused

DEFAULT_CACHE_BYTES = 20 * 2**30
_MAX_OPEN = 8
_SCHEMES = ("s3", "gs", "az", "memory")


@dataclass(frozen=True, slots=True)
class ObjectRoot:
    """The URL of a root in an object store, and this machine's directory for local copies."""

    url: str
    cache_directory: Path
    cache_bytes: int = DEFAULT_CACHE_BYTES

    def __str__(self) -> str:
        return self.url


IndexRoot: TypeAlias = Path | ObjectRoot | ShardStore
"""A directory, a bucket, or a store that is open already."""


def index_root(root: Path | str, cache_directory: Path, cache_bytes: int) -> IndexRoot:
    """Make a root of what settings or flags say: a path, or the URL of a bucket."""
    return root if isinstance(root, Path) else ObjectRoot(root, cache_directory, cache_bytes)


def local_directory(root: IndexRoot) -> Path:
    """Return the directory of this machine that a root uses."""
    if isinstance(root, Path):
        return root
    return root.cache_directory if isinstance(root, ObjectRoot) else root.local_directory


def open_root(root: IndexRoot) -> ShardStore:
    """Open the store of a root; nothing is read yet. Raises `StoreRefused` for a URL that cannot be used.

    One root in a bucket has one store in a process, because its connections and its cache are shared.
    """
    if isinstance(root, Path):
        return LocalShardStore(root)
    return _open_objects(root) if isinstance(root, ObjectRoot) else root


def store_fields(store: ShardStore) -> dict[str, Any]:
    """Return from what `store_from_fields` opens the same store in another process."""
    if isinstance(store, ObjectShardStore):
        bucket, cache = store.bucket, store.cache
        return {
            "url": bucket.url,
            "prefix": store.prefix,
            "cache": str(cache.directory.parent),
            "cache_bytes": cache.max_bytes,
        }
    return {"path": store.address}


def store_from_fields(fields: Mapping[str, Any]) -> ShardStore:
    if "url" not in fields:
        return LocalShardStore(Path(fields["path"]))
    root = open_root(ObjectRoot(fields["url"], Path(fields["cache"]), fields["cache_bytes"]))
    return root.below(fields["prefix"])


@lru_cache(maxsize=_MAX_OPEN)
def _open_objects(root: ObjectRoot) -> ObjectShardStore:
    if root.url.partition("://")[0] not in _SCHEMES:
        raise StoreRefused(errno.EINVAL, f"{root.url}: a root in a store begins with s3://, gs:// or az://")
    bucket = open_bucket(root.url)
    folder = root.cache_directory.absolute() / xxhash.xxh3_64_hexdigest(bucket.url.encode())
    return ObjectShardStore(bucket, FileCache(folder, root.cache_bytes))
