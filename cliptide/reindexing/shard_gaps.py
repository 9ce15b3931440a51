"""How far one index is behind another of the same log, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clip_index.errors import IndexRefused
from clip_index.generations.history import read_newest
from clip_index.indexes.index_directory import IndexDirectory

_NUM_NAMED = 5


@dataclass(frozen=True, slots=True)
class ShardGap:
    """The offsets of one shard: `next_offset` is None while no consumer has owned it."""

    shard: str
    wanted: int
    first_offset: int
    next_offset: int | None

    @property
    def num_behind(self) -> int:
        reached = self.first_offset if self.next_offset is None else self.next_offset
        return max(0, self.wanted - reached)

    def __str__(self) -> str:
        reached = "nothing" if self.next_offset is None else f"{self.next_offset:,}"
        return f"{self.shard}: {reached} of {self.wanted:,}"


def read_next_offsets(index: IndexDirectory) -> list[int]:
    """Return what each shard covers by its newest manifest, 0 for a shard without one."""
    return [0 if found is None else found[1] for found in _ranges_of(index)]


def read_gaps(index: IndexDirectory, wanted: Sequence[int]) -> list[ShardGap]:
    """Compare an index with the next offsets that it is to reach, one of each partition."""
    return [
        ShardGap(
            shard=index.shard_name(partition),
            wanted=wanted[partition],
            first_offset=0 if found is None else found[0],
            next_offset=None if found is None else found[1],
        )
        for partition, found in enumerate(_ranges_of(index))
    ]


def described(gaps: Sequence[ShardGap]) -> str:
    """Name the shards that are behind, with their numbers."""
    behind = [gap for gap in gaps if gap.num_behind]
    named = "; ".join(map(str, behind[:_NUM_NAMED]))
    more = f"; and {len(behind) - _NUM_NAMED} more" if len(behind) > _NUM_NAMED else ""
    return named + more


def refuse_other_log(index: IndexDirectory, served: IndexDirectory) -> None:
    """Raise `IndexRefused` if the two are not built from the same topic."""
    ours, theirs = index.description, served.description
    differences = [
        f"{name} {ours_value!r} (that of {served.index_id}: {theirs_value!r})"
        for name, ours_value, theirs_value in (
            ("topic", ours.topic, theirs.topic),
            ("topic id", ours.topic_id, theirs.topic_id),
            ("number of partitions", ours.num_partitions, theirs.num_partitions),
        )
        if ours_value != theirs_value
    ]
    if differences:
        raise IndexRefused(f"the index {index.index_id} is of another log: {', '.join(differences)}")


def _ranges_of(index: IndexDirectory) -> list[tuple[int, int] | None]:
    manifests = (read_newest(index.shard_store(n)) for n in range(index.description.num_partitions))
    return [None if one is None else (one.first_offset, one.next_offset) for one in manifests]
