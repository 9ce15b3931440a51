"""Follows the commits of an index, and tells how many records it covers at each time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.data import NUM_PARTITIONS
from benchmarks.processes.services import PATIENCE_SECONDS, Running
from clip_index.generations.history import manifest_name, read_manifest


@dataclass(frozen=True, slots=True)
class Mark:
    """The index covered `num_records` at `seconds` (of `time.perf_counter`)."""

    seconds: float
    num_records: int


class CommitWatch:
    """Finds new generations of each shard by the name of the next one, as readers do."""

    def __init__(self, services: Running) -> None:
        self._services = services
        self._generations = services.site.generations()
        self._covered = [0] * NUM_PARTITIONS
        for partition in range(NUM_PARTITIONS):
            self._read(partition)
        self._newest = Mark(time.perf_counter(), sum(self._covered))

    def look(self) -> Mark:
        """Look for new generations, and return what is covered now."""
        for partition in range(NUM_PARTITIONS):
            self._follow(partition)
        self._newest = Mark(time.perf_counter(), sum(self._covered))
        return self._newest

    def follow(self, until: int, timeout_seconds: float = PATIENCE_SECONDS) -> list[Mark]:
        """Look until `until` records are covered.

        Returns the mark before this call, and one mark for each look that found more records.
        """
        marks = [self._newest]

        def is_done() -> bool:
            mark = self.look()
            if mark.num_records > marks[-1].num_records:
                marks.append(mark)
            return mark.num_records >= until

        self._services.wait(is_done, timeout_seconds)
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
    """Return the rate from the first mark to the last. Records of the first mark do not count."""
    first, last = marks[0], marks[-1]
    return (last.num_records - first.num_records) / (last.seconds - first.seconds)


def burst_per_second(marks: Sequence[Mark]) -> float:
    """Return the rate from a burst's first commit to its last.

    If one look found all commits, the rate is counted from the mark before them.
    """
    _, *commits = marks
    return records_per_second(commits if len(commits) > 1 else marks)
