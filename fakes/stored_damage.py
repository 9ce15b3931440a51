"""What happens to a stored file behind everybody's back, in a directory and in a bucket.

In a bucket the object changes, and no copy of it stays on this machine.
"""

from __future__ import annotations

from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.index_roots import open_root
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.shard_writer import ShardWriter
from fakes.shards import root_of


def newest_pack(writer: ShardWriter, number: int = -1) -> str:
    """Return the name of one of a writer's segments, by default the newest one."""
    return writer.manifest.segments[number].stored_name


def stored_bytes(store: ShardStore, name: str) -> bytes:
    return store.local_file(name).read_bytes()


def rewrite(store: ShardStore, name: str, data: bytes) -> None:
    if isinstance(store, LocalShardStore):
        path = store.local_file(name)
        if path.exists():
            path.chmod(0o644)
        path.write_bytes(data)
        return
    store.replace(name, data)
    store.forget_copy(store.local_file(name))


def flip_a_bit(store: ShardStore, name: str) -> None:
    data = bytearray(stored_bytes(store, name))
    data[len(data) // 2] ^= 4
    rewrite(store, name, bytes(data))


def cut_short(store: ShardStore, name: str) -> None:
    data = stored_bytes(store, name)
    rewrite(store, name, data[: len(data) // 2])


def root_store(index: IndexDirectory) -> ShardStore:
    """Return the store of the root of an index."""
    return open_root(root_of(index))
