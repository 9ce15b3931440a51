"""Object stores in memory: a bucket that several machines share, each with a cache of its own."""

from __future__ import annotations

from pathlib import Path

from clip_index.storage.buckets.file_cache import FileCache
from clip_index.storage.buckets.object_bucket import ObjectBucket, open_bucket
from clip_index.storage.buckets.object_store import ObjectShardStore

_CACHE_BYTES = 2**30


def memory_bucket() -> ObjectBucket:
    return open_bucket("memory://bucket")


def object_store(
    bucket: ObjectBucket, prefix: str, cache: Path, max_bytes: int = _CACHE_BYTES
) -> ObjectShardStore:
    """The store of a prefix, as one machine sees it. `cache` is that machine's directory for copies."""
    return ObjectShardStore(bucket, FileCache(cache, max_bytes), prefix)
