"""A store that fails at one request of a writer's life: whatever follows, the index equals the fold.

The writer reacts as the consumer does: after an `OSError` it tries the same again, after `CommitUnknown` it
becomes the owner again, and when it is fenced it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from clip_index.content import Delta
from clip_index.errors import ClipIndexError, CommitUnknown, Fenced
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.buckets.object_bucket import ObjectBucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from crashes.shard_life import (
    BATCH,
    SETTINGS,
    Violation,
    inline_lanes,
    live,
    open_and_check,
    recover_and_check,
)
from crashes.small_log import Log, build_log
from fakes.faulty_bucket import Fault, FaultyBucket
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import create_index, take_over

FAULTS_OF_A_LIFE = 780
_MAX_FAILURES = 20
_LENGTH = 20
_WITH_A_RIVAL = replace(SETTINGS, retain_for_seconds=600.0)
"""What one writer has just put, another one's collection of garbage spares by its age alone."""

_ResultT = TypeVar("_ResultT")


def store_faults(directory: Path, *, seed: int, every: int = 1) -> Iterator[list[str]]:
    """Yield the violations of each kind of fault at every request, or at each `every`-th of them."""
    log = build_log(seed, _LENGTH)
    for fault in Fault:
        number, has_failed = 1, True
        while has_failed:
            with TemporaryDirectory(dir=directory) as machines:
                has_failed, violations = _fail_once(Path(machines), log, number, fault)
            if has_failed:
                yield violations
            number += every


def _fail_once(machines: Path, log: Log, number: int, fault: Fault) -> tuple[bool, list[str]]:
    """Live with one fault; return whether the life was long enough to meet it, and the violations."""
    whole = memory_bucket()
    faulty = FaultyBucket(whole, number, fault, lambda: _rival(machines, whole, log))
    settings = _WITH_A_RIVAL if fault in (Fault.SLOW, Fault.HIDDEN) else SETTINGS
    life = _Life(object_store(faulty, "", machines / "writer"), log, settings)
    try:
        life.run()
        other = object_store(whole, "", machines / "other")
        _check_acknowledged(life, open_and_check(other, log))
        recover_and_check(other, log)
    except (Violation, AssertionError, ClipIndexError, OSError) as error:
        return True, [f"{fault.value}, request {number}: {error!r}"]
    return faulty.has_failed, []


def _check_acknowledged(life: _Life, found: tuple[int, int]) -> None:
    if found[0] < life.acknowledged[0] or found[1] < life.acknowledged[1]:
        raise Violation(f"acknowledged {life.acknowledged}, found {found}")


def _rival(machines: Path, bucket: ObjectBucket, log: Log) -> None:
    """Another process that owns the shard for a while: it takes over, commits, merges and tidies up."""
    store: ObjectShardStore = object_store(bucket, "", machines / "rival")
    live(store, log[: len(log) // 2], lambda generation, next_offset: None, settings=_WITH_A_RIVAL)


class _Life:
    """A writer that goes on after errors, as `consumer.writing.owned_shard` lets it."""

    def __init__(self, store: ShardStore, log: Log, settings: WriterSettings) -> None:
        self.acknowledged = (0, 0)
        self._settings = settings
        self._store = store
        self._log = log
        self._num_failures = 0
        self._own_epoch: int | None = None

    def run(self) -> None:
        index = self._tried(lambda: create_index(self._store))
        try:
            while not self._live(index):
                pass
        except Fenced:
            pass  # the rival owns the shard

    def _live(self, index: IndexDirectory) -> bool:
        """Live with one writer until the log ends; False if it must become the owner again."""
        try:
            writer = self._tried(lambda: self._take_over(index))
        except CommitUnknown:
            return False
        self._own_epoch = writer.epoch
        try:
            while writer.committed_next_offset < len(self._log):
                self._turn(writer)
            self._tried(writer.maintain)
        except CommitUnknown:
            return False
        finally:
            writer.close()
        return True

    def _take_over(self, index: IndexDirectory) -> ShardWriter:
        return take_over(
            index,
            settings=self._settings,
            lanes=inline_lanes(),
            clock=lambda: time.time() + 1,
            own_epoch=self._own_epoch,
        )

    def _turn(self, writer: ShardWriter) -> None:
        if not writer.has_changes:
            first = writer.next_offset
            last = min(first + BATCH, len(self._log))
            writer.add(Delta(first, last, self._log[first:last]))
        self._tried(writer.commit)
        self.acknowledged = (writer.generation, writer.committed_next_offset)
        self._tried(lambda: writer.renew_watermark(writer.committed_next_offset))
        self._tried(writer.maintain)
        self.acknowledged = (writer.generation, writer.committed_next_offset)

    def _tried(self, action: Callable[[], _ResultT]) -> _ResultT:
        while True:
            try:
                return action()
            except OSError:
                self._num_failures += 1
                if self._num_failures > _MAX_FAILURES:
                    raise
