"""The commits of one shard, as the traces of its sampled records see them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from clip_index.generations.traces import MAX_TRACES, TracedRecord
from consumer.tasks import Handover
from consumer.writing.shard_writer import ShardWriter


class TracedCommits:
    """Tells readers which sampled records a commit brings, and makes the records' spans behind it.

    Readers are told before the commit, so that whoever serves the new generation knows its traces.
    """

    def __init__(self) -> None:
        self._latest: deque[TracedRecord] = deque(maxlen=MAX_TRACES)

    def begin(self, writer: ShardWriter, handovers: Iterable[Handover]) -> None:
        """A commit of these handovers begins. One that is tried again has begun already."""
        traced = [one for handover in handovers for one in handover.traces]
        fresh = [one for one in traced if one.trace.commit_began_ns is None]
        if not fresh:
            return
        now_ns = time.time_ns()
        for one in fresh:
            one.trace.commit_began_ns = now_ns
            if one.outcome.status in ("indexed", "patched", "removed"):
                self._latest.append(
                    TracedRecord(one.trace.offset, one.trace.traceparent, now_ns // 1_000_000)
                )
        with suppress(OSError):  # the commit itself meets the same disk, and says what is wrong
            writer.publish_traces(tuple(self._latest))

    def committed(self, handover: Handover, writer: ShardWriter | None) -> None:
        """Make the spans of the records that a commit has made durable."""
        for one in handover.traces:
            shown = {} if writer is None else {"cliptide.generation": writer.generation}
            one.trace.committed(replace(one.outcome, attributes=shown))
