"""The shards of an index in a directory: the only module that names the index's own writer."""

from __future__ import annotations

from dataclasses import dataclass, field

from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.takeover import Claim
from clip_index.generations.watermark import Watermark, read_watermark
from clip_index.writing.merge_worker import MergeLanes
from clip_index.writing.shard_writer import ShardWriter, WriterSettings


@dataclass(frozen=True, slots=True)
class DirectoryShards:
    """Implements `Shards`. All shards of the process share the workers that merge."""

    index: IndexDirectory
    writer_id: str
    settings: WriterSettings = field(default_factory=WriterSettings)
    lanes: MergeLanes = field(default_factory=MergeLanes)

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> ShardWriter:
        return ShardWriter.take_over(
            self.index,
            partition,
            Claim(self.writer_id, first_offset, own_epoch),
            settings=self.settings,
            lanes=self.lanes,
        )

    def read_watermark(self, partition: int) -> Watermark | None:
        return read_watermark(self.index.shard_store(partition))

    def close(self) -> None:
        self.lanes.close()
