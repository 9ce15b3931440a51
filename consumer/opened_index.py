"""The index that a consumer writes: in a directory or in OpenSearch. The only module that names both."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clip_index.encoder.protocol import Encoder
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.storage.index_roots import IndexRoot, local_directory
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.shard_writer import WriterSettings
from consumer.directory_shards import DirectoryShards
from consumer.intake.takeover import ShardPaths
from consumer.saved_encodings import NothingStored, StoredContents
from consumer.writing.shard_writer import Shards
from event_log.records import TopicDescription
from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.index import OpenSearchIndex, create_index
from opensearch_engine.shards import OpenSearchShards


@dataclass(frozen=True, slots=True)
class IndexLocation:
    """Where the index lies, and which consumer group writes it.

    An index in OpenSearch lies there; `root` then keeps what belongs to this machine alone.
    """

    root: IndexRoot
    index_id: str
    group_id: str
    opensearch: OpenSearchSettings | None = None


class ShardNames(Protocol):
    """The names of an index's shards."""

    def shard_name(self, partition: int) -> str: ...


@dataclass(frozen=True, slots=True)
class OpenedIndex:
    """An index as the parts of a consumer need it.

    `shard_paths` says where the records in flight are kept, `stored` finds embeddings by their digests.
    `store` has the files beside the shards, where there are any.
    """

    names: ShardNames
    shards: Shards
    shard_paths: ShardPaths
    stored: StoredContents
    writer_id: str
    store: ShardStore | None = None


@dataclass(frozen=True, slots=True)
class _LocalPaths:
    """Implements `ShardPaths` for an index that has its files in flight on this machine alone."""

    index: OpenSearchIndex

    def shard_path(self, partition: int) -> Path:
        return self.index.shard_path(partition)

    def shared_inflight(self, _partition: int) -> None:
        return None


def open_index(
    location: IndexLocation, topic: TopicDescription, encoder: Encoder, settings: WriterSettings
) -> OpenedIndex:
    """Create the index, or open the one that is there.

    Raises `IndexRefused` when it was built from another log, group or encoder, and `OSError` while
    what holds it does not answer.
    """
    description = IndexDescription(
        topic=topic.name,
        topic_id=topic.topic_id,
        num_partitions=topic.num_partitions,
        group_id=location.group_id,
        fingerprint=encoder.fingerprint,
    )
    writer_id = build_writer_id()
    if location.opensearch is None:
        directory = IndexDirectory.create(location.root, location.index_id, description)
        shards = DirectoryShards.of(directory, writer_id, settings)
        return OpenedIndex(directory, shards, shards, shards, writer_id, directory.store)
    connection = Connection(location.opensearch)
    index = create_index(connection, local_directory(location.root), location.index_id, description)
    return OpenedIndex(
        index, OpenSearchShards(index, writer_id), _LocalPaths(index), NothingStored(), writer_id
    )


def build_writer_id() -> str:
    """A name that no other process has, and that tells a reader of a manifest where the writer ran."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
