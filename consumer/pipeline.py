"""The threads of a consumer, and how tasks pass between them.

    broker ◄─► intake ──tasks──► encoder ──handovers──► writer ──► shards on disk
               │    ▲             ▲                      │  ▲
               │    └─ notices ───┼── committed, fenced ─┘  └── dead letters delivered?
               └──► preparation ──┘
                    (pool, references)

- **intake** (`Intake`) alone touches the record source. Records go into one lane for each
  partition (`Backlog`), bounded in bytes; a partition whose share is full is paused once and
  resumed when half of it is free. It submits tasks to preparation, a window ahead, and names
  that window in the shard's `inflight.json` first. It never encodes and never waits for the
  others, except inside a rebalance.
- **preparation** decodes, fetches references and prepares contents in a pool of threads and
  one event loop, small records in groups. Works settle in any order and are taken in offset
  order: a lane's first task holds back those behind it (a reference that is not there yet
  holds its partition, no other).
- **encoder** (`Encoding`) takes ready tasks in order of arrival, closes batches, encodes, sends
  dead letters, and hands one contiguous delta for each partition to the writer.
- **writer** (`Writing`) owns every shard. It adds a delta when its dead letters are delivered,
  commits, merges, renews watermarks. It waits for nobody, so everybody may wait for it.

Who waits for whom: encoder → writer (room), intake → encoder and writer (rebalance, stop),
both with a bound. Nobody waits for intake: notices to it are a queue. So there is no cycle.

A delta carries its assignment's epoch from the record to the writer, and everything of an
older epoch is dropped where it is met. On revoke the lane is closed, the batch at hand is
encoded and committed, the shard's writer is closed, and only then is the group answered.

Quarantine: what an unclean end left in flight is handled alone (`RiskGate`): nothing else is
decoded, prepared or encoded meanwhile, so that a death has one suspect.

The first error of any thread stops all; the shards are then left as on a normal stop. After a
fault (an exception no rule expects) the in-flight set stays, so that the next start quarantines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from consumer.encoding.thread import Encoding
from consumer.errors import ConsumerFault
from consumer.intake.thread import Intake
from consumer.pipeline_state import PipelineState
from consumer.preparation.steps import Preparation
from consumer.references.fetching import References
from consumer.writing.shard_writer import Shards
from consumer.writing.thread import Writing

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineParts:
    intake: Intake
    preparation: Preparation
    references: References
    encoding: Encoding
    writing: Writing
    shards: Shards


class Pipeline:
    """Starts the threads, stops them in order, and reports the error that ended them."""

    def __init__(self, parts: PipelineParts, state: PipelineState, *, stop_timeout_seconds: float) -> None:
        self._parts = parts
        self._state = state
        self._stop_timeout = stop_timeout_seconds
        self._threads = {
            "writer": self._thread("writer", lambda: parts.writing.run(state)),
            "encoder": self._thread("encoder", lambda: parts.encoding.run(state)),
            "intake": self._thread("intake", lambda: parts.intake.run(state)),
        }

    def start(self) -> None:
        self._parts.references.start()
        for thread in self._threads.values():
            thread.start()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until the pipeline stops or is asked to; False after the timeout."""
        return self._state.wait(timeout_seconds)

    def finish(self) -> None:
        """Stop within `stop_timeout_seconds`: intake leaves the group, which commits; then the rest.

        Raises the error that ended the pipeline, if one did.
        """
        self._state.stop()
        deadline = time.monotonic() + self._stop_timeout
        self._join("intake", deadline)
        self._parts.encoding.close()
        self._parts.writing.close()
        self._join("encoder", deadline)
        self._join("writer", deadline)
        self._parts.shards.close()
        self._parts.references.close(max(deadline - time.monotonic(), 0.0))
        self._parts.preparation.close()
        if self._state.failure is not None:
            raise self._state.failure

    @property
    def failure(self) -> BaseException | None:
        return self._state.failure

    @property
    def is_stopping(self) -> bool:
        return self._state.is_stopping()

    @property
    def is_writable(self) -> bool:
        """Whether no shard waits for its disk."""
        return not self._parts.writing.is_failing

    @property
    def dead_threads(self) -> list[str]:
        return [name for name, thread in self._threads.items() if not thread.is_alive()]

    @property
    def seconds_since_poll(self) -> float:
        return time.monotonic() - self._parts.intake.last_turn_at

    def _thread(self, name: str, body: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._guarded(name, body), name=name, daemon=True)

    def _guarded(self, name: str, body: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                body()
            except BaseException as error:  # noqa: BLE001 - `finish` raises it
                _log.error("thread ended", thread=name, error=f"{type(error).__name__}: {error}")
                self._state.fail(error)

        return run

    def _join(self, name: str, deadline: float) -> None:
        thread = self._threads[name]
        thread.join(max(deadline - time.monotonic(), 0.0))
        if thread.is_alive():
            self._state.fail(ConsumerFault(f"the {name} thread did not stop in time"))
