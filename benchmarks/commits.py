"""How many records the index of a site covers, followed commit by commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.data import NUM_PARTITIONS
from benchmarks.services import Running
from clip_index.generations.history import manifest_name, read_manifest


@dataclass(frozen=True, slots=True)
class Mark:
    """At `seconds` (of `time.perf_counter`) the index covered so many records."""

    seconds: float
    num_records: int


class CommitWatch:
    """Looks for the next generation of each shard by its name, as readers do."""

    def __init__(self, services: Running) -> None:
        self._services = services
        self._generations = services.site.generations()
        self._covered = [0] * NUM_PARTITIONS
        for partition in range(NUM_PARTITIONS):
            self._read(partition)
        self._newest = Mark(time.perf_counter(), sum(self._covered))

    def look(self) -> Mark:
        """Return what is covered now."""
        for partition in range(NUM_PARTITIONS):
            self._follow(partition)
        self._newest = Mark(time.perf_counter(), sum(self._covered))
        return self._newest

    def follow(self, until: int) -> list[Mark]:
        """Look until so many records are covered.

        Returns the mark of the look before, and one for each look that found more.
        """
        marks = [self._newest]

        def is_done() -> bool:
            mark = self.look()
            if mark.num_records > marks[-1].num_records:
                marks.append(mark)
            return mark.num_records >= until

        self._services.wait(is_done)
        return marks

    def _follow(self, partition: int) -> None:
        store, known = self._services.site.shard_store(partition), self._generations[partition]
        while store.exists(manifest_name(self._generations[partition] + 1)):
            self._generations[partition] += 1
        if self._generations[partition] > known:
            self._read(partition)

    def _read(self, partition: int) -> None:
        store = self._services.site.shard_store(partition)
        self._covered[partition] = read_manifest(store, self._generations[partition]).next_offset


def records_per_second(marks: Sequence[Mark]) -> float:
    """The rate from the first mark to the last, without what the first one covered."""
    first, last = marks[0], marks[-1]
    return (last.num_records - first.num_records) / (last.seconds - first.seconds)


def burst_per_second(marks: Sequence[Mark]) -> float:
    """The rate from a burst's first commit to its last; where one look found all, from the mark before it."""
    _, *commits = marks
    return records_per_second(commits if len(commits) > 1 else marks)
