"""The shards of an index in a directory or a bucket: the only module that names the index's own writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from clip_index.content import Derived
from clip_index.generations.takeover import Claim
from clip_index.generations.watermark import Watermark, read_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.writing.erasure import ErasureBudget
from clip_index.writing.merge_worker import MergeLanes
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from consumer.quarantine.inflight import FILE_NAME


@dataclass(frozen=True, slots=True)
class StoredInFlight:
    """Implements `SharedInFlight` as an object beside the shard's manifests."""

    store: ObjectShardStore

    def read(self) -> bytes:
        return self.store.read(FILE_NAME)

    def write(self, data: bytes) -> None:
        self.store.replace(FILE_NAME, data)

    def remove(self) -> None:
        self.store.remove(FILE_NAME)


@dataclass(frozen=True, slots=True)
class DirectoryShards:
    """Implements `Shards` and `StoredContents`. All shards of the process share the workers that merge.

    Other threads look up in the writers that are in use. A writer that its owner has let go is not held
    here, because its files would stay on the disk.
    """

    index: IndexDirectory
    writer_id: str
    settings: WriterSettings = field(default_factory=WriterSettings)
    lanes: MergeLanes = field(default_factory=MergeLanes)
    _writers: WeakValueDictionary[int, ShardWriter] = field(default_factory=WeakValueDictionary, init=False)

    @classmethod
    def of(cls, index: IndexDirectory, writer_id: str, settings: WriterSettings) -> DirectoryShards:
        """Let all shards of the process share the budget for erasing that the settings give it."""
        erasure = ErasureBudget(settings.merge.erase_bytes_a_day)
        return cls(index, writer_id, settings, MergeLanes(erasure=erasure))

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> ShardWriter:
        writer = ShardWriter.take_over(
            self.index,
            partition,
            Claim(self.writer_id, first_offset, own_epoch),
            settings=self.settings,
            lanes=self.lanes,
        )
        self._writers[partition] = writer
        return writer

    def find_derived(self, partition: int, digest: bytes) -> Derived | None:
        """Look in the shard of this partition, then in the others that this process writes."""
        writers = [writer for reference in self._writers.valuerefs() if (writer := reference()) is not None]
        writers.sort(key=lambda writer: writer.partition != partition)
        found = (writer.find_derived(digest) for writer in writers)
        return next((derived for derived in found if derived is not None), None)

    def shard_path(self, partition: int) -> Path:
        return self.index.shard_path(partition)

    def shared_inflight(self, partition: int) -> StoredInFlight | None:
        """A directory is what all machines see; in a bucket there is a second file."""
        store = self.index.shard_store(partition)
        return StoredInFlight(store) if isinstance(store, ObjectShardStore) else None

    def read_watermark(self, partition: int) -> Watermark | None:
        return read_watermark(self.index.shard_store(partition))

    def close(self) -> None:
        self.lanes.close()
