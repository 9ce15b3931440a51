"""Whether the disk has room for a merged segment beside the segments that it replaces.

They stay for readers until they are garbage. So a merge needs the room of a whole new segment, and while
it fills the last of the disk, no commit can be made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clip_index.content import VectorForm
from clip_index.generations.manifest import SegmentEntry, pack_name
from clip_index.storage.shard_store import ShardStore

GROWTH: Mapping[VectorForm, float] = MappingProxyType({"fp16": 1.2, "sq8": 1.6})
"""A merged segment is larger than sources without lists. Codes take up to a fifth of what embeddings do,
and each node 16 bytes more. With quantised lists it holds codes of 8 bits beside the embeddings."""
MAX_SPARE_BYTES = 2**30
"""Left for commits, which go on meanwhile. Of a smaller merge it is as much as the merge takes."""


@dataclass(frozen=True, slots=True)
class MergeRoom:
    """The bytes that a merge should find free, and those that are."""

    needed_bytes: int
    free_bytes: int

    @property
    def is_enough(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    def __str__(self) -> str:
        needed, free = (f"{num_bytes / 1e6:,.0f} MB" for num_bytes in (self.needed_bytes, self.free_bytes))
        return f"a merge needs {needed} of the disk, where {free} are free"


def room_for_merge(store: ShardStore, sources: Iterable[SegmentEntry], growth: float) -> MergeRoom:
    """Ask the file system on which the merged segment is built; `OSError` if that does not answer."""
    merged_bytes = int(growth * sum(entry.size_bytes for entry in sources))
    free_bytes = shutil.disk_usage(store.staging_path(pack_name("merged")).parent).free
    return MergeRoom(merged_bytes + min(merged_bytes, MAX_SPARE_BYTES), free_bytes)
