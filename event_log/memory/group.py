"""A consumer group in memory: which member shall own each partition, and which one owns it now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

MemberId: TypeAlias = int
TopicPartitionKey: TypeAlias = tuple[str, int]


def balance(
    target: Mapping[int, MemberId], members: Collection[MemberId], num_partitions: int
) -> dict[int, MemberId]:
    """Spread the partitions evenly over the members, and move as few of them as possible."""
    if not members:
        return {}
    share, rest = divmod(num_partitions, len(members))
    by_load = sorted(members, key=lambda member: -sum(owner == member for owner in target.values()))
    room = {member: share + (rank < rest) for rank, member in enumerate(by_load)}
    balanced: dict[int, MemberId] = {}
    for partition in range(num_partitions):
        owner = target.get(partition)
        if owner is not None and room.get(owner, 0) > 0:
            balanced[partition] = owner
            room[owner] -= 1
    free = (member for member in members for _ in range(room[member]))
    for partition in range(num_partitions):
        if partition not in balanced:
            balanced[partition] = next(free)
    return balanced


@dataclass(slots=True)
class Group:
    """A group with cooperative rebalances: a member gets a partition only after its owner gave it up."""

    committed: dict[TopicPartitionKey, int] = field(default_factory=dict)
    members: list[MemberId] = field(default_factory=list)
    target: dict[int, MemberId] = field(default_factory=dict)
    owners: dict[int, MemberId] = field(default_factory=dict)

    def join(self, member: MemberId, num_partitions: int) -> None:
        self.members.append(member)
        self.target = balance(self.target, self.members, num_partitions)

    def leave(self, member: MemberId, num_partitions: int) -> None:
        self.members.remove(member)
        self.owners = {partition: owner for partition, owner in self.owners.items() if owner != member}
        self.target = balance(self.target, self.members, num_partitions)

    def owned(self, member: MemberId) -> list[int]:
        return sorted(partition for partition, owner in self.owners.items() if owner == member)

    def to_revoke(self, member: MemberId) -> list[int]:
        return [partition for partition in self.owned(member) if self.target.get(partition) != member]

    def to_assign(self, member: MemberId) -> list[int]:
        return sorted(p for p, owner in self.target.items() if owner == member and p not in self.owners)

    def assign(self, member: MemberId, partitions: Collection[int]) -> None:
        self.owners |= dict.fromkeys(partitions, member)

    def revoke(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self.owners.pop(partition, None)
