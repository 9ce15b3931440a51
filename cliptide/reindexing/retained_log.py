"""What is left of the log that the served index was built from, and what that would rebuild."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from clip_index.views.snapshot import ShardView


@dataclass(frozen=True, slots=True)
class RetainedLog:
    """Where the log of each shard begins now.

    Retention removes the beginning of a log, so offsets alone tell whether it still holds an upload. They
    do not if the content was patched since, because its row has the offset of the patch; or if the topic is
    compacted, because that removes uploads from anywhere. Then the log has to be read: `leaves` has, by
    shard, the live contents that it leaves and their offsets. `unread` are ids whose records cannot be
    read here; of them, the log is believed to hold what offsets say.
    """

    starts: Mapping[str, int]
    leaves: Mapping[str, Mapping[str, int]] | None = None
    unread: Mapping[str, Collection[str]] | None = None

    def has_room(self, view: ShardView) -> bool:
        """Whether the log begins behind the shard's first offset, so that contents can be put before it."""
        return view.snapshot.first_offset < self.starts[view.name]

    def is_incomplete(self, view: ShardView) -> bool:
        """Whether the log may lack contents of the shard."""
        return self.leaves is not None or self.has_room(view)

    def rebuilds(self, shard: str, content_id: str, offset: int) -> bool:
        """Whether a consumer that reads what is left ends with this content."""
        if offset < self.starts[shard]:
            return False
        if self.leaves is None or content_id in (self.unread or {}).get(shard, ()):
            return True
        return self.leaves.get(shard, {}).get(content_id) == offset
