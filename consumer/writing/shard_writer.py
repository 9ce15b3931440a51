"""The seam to the index: what the consumer needs of whatever keeps its shards.

`consumer.directory_shards` implements it for an index in a directory. Another engine implements
these two protocols and nothing else. Errors are of `clip_index.errors`, and of
`clip_index.writing.merge_worker` for a failed merge; a disk that does not answer is an `OSError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clip_index.content import Delta
from clip_index.generations.traces import TracedRecord
from clip_index.generations.watermark import Watermark
from clip_index.writing.erasure import ErasureBacklog


class ShardWriter(Protocol):
    """The one writer of one shard. The writer thread owns it.

    `commit` may be called on another thread, while the writer thread waits for it: commits of several
    shards are made at the same time.

    After `Fenced` or `CommitUnknown` the writer can only be closed.
    """

    @property
    def partition(self) -> int: ...

    @property
    def shard(self) -> str:
        """The shard's name, for logs and metrics."""

    @property
    def epoch(self) -> int:
        """The writer epoch: it grows with each owner of the shard."""

    @property
    def generation(self) -> int:
        """The generation that was committed last."""

    @property
    def next_offset(self) -> int:
        """Everything below this offset is added, committed or not."""

    @property
    def committed_next_offset(self) -> int:
        """Everything below this offset is committed."""

    @property
    def merge_debt(self) -> int:
        """How many segments there are beyond those that merging leaves; 0 where nothing is merged."""

    @property
    def erasure_backlog(self) -> ErasureBacklog:
        """What is still to be erased of deleted contents; nothing where the index does not see to it."""

    @property
    def read_bytes(self) -> int:
        """Roughly the bytes that patches have had read into memory since the last commit."""

    def add(self, delta: Delta) -> None:
        """Take a delta that begins at `next_offset`; anything else is a `DeltaMismatch`."""

    def commit(self) -> int:
        """Make everything added durable and visible in one step; return the committed next offset.

        After an `OSError` nothing has changed, and the same commit can be tried again. After
        `CommitUnknown` only the disk can tell: become the owner again. `Fenced`: another writer
        owns the shard.
        """

    def maintain(self) -> None:
        """Do what keeps the shard small and fast: commit finished merges, start due ones, remove garbage.

        Raises what `commit` raises, and `MergeFailed` for a merge that will be tried again.
        """

    def renew_watermark(self, watermark_ms: int) -> None:
        """Publish that every record up to this time (milliseconds since 1970, UTC) is committed."""

    def publish_traces(self, traces: Sequence[TracedRecord]) -> None:
        """Tell readers of the latest sampled records: those of the next commit, and some before them."""

    def close(self) -> None:
        """Stop without committing."""


class Shards(Protocol):
    """The shards of one index, each to be owned by one process at a time."""

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> ShardWriter:
        """Commit a takeover generation with a greater writer epoch, so that a former owner is fenced.

        A new shard begins at `first_offset`, where the log begins. `own_epoch` is the epoch of the
        writer that this process had before, None for the first one: if another process has become
        the owner since, this raises `Fenced` and changes nothing.
        """

    def read_watermark(self, partition: int) -> Watermark | None:
        """Read the watermark that the last owner published; None where there is none."""

    def close(self) -> None:
        """Stop what the writers of this process share. Called when the writer thread has ended."""
