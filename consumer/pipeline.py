"""The threads of a consumer, and how tasks pass between them.

    broker ◄─► intake ──tasks──► encoder ──handovers──► writer ──► shards on disk
               │    ▲             ▲                      │  ▲
               │    └─ notices ───┼── committed, fenced ─┘  └── dead letters delivered?
               └──► preparation ──┘
                    (pool, references)

- **intake** (`Intake`) is the only thread that uses the record source. It puts records into one
  lane for each partition (`Backlog`), whose bytes are bounded: a partition is paused once when its
  share is full, and resumed when half of the share is free. Intake submits tasks to preparation,
  a window ahead of the encoder, and first names that window in the shard's `inflight.json`. It
  never encodes, and waits for other threads only inside a rebalance.
- **preparation** decodes records, fetches references and prepares contents, in a pool of threads
  and one event loop. Small records go through it in groups. Tasks settle in any order but are
  taken in offset order, so a lane's first task holds back those behind it: a reference that is
  not there yet holds its own partition and no other.
- **encoder** (`Encoding`) takes ready tasks in order of arrival, closes batches, encodes them,
  sends dead letters, and hands one contiguous delta for each partition to the writer.
- **writer** (`Writing`) owns every shard. It adds a delta when its dead letters are delivered,
  commits, merges and renews watermarks. It waits for no other thread.

Who waits for whom: the encoder waits for the writer when the writer has no room. Intake waits for
encoder and writer in a rebalance and at a stop, each time with a bound. No thread waits for intake,
because notices to it go into a mailbox (`Notices`). So no threads wait for each other in a circle.

Everything carries the epoch of its assignment, from the record to the writer, and is dropped where
a newer epoch is known. At a revoke the lane is closed, the batch at hand is encoded and committed,
the shard's writer is closed, and only then is the group answered.

Quarantine: records that were in flight at an unclean end are handled one at a time (`RiskGate`).
Meanwhile nothing else is decoded, prepared or encoded, so that another death has one suspect.

The first error of any thread stops all threads. The shards are then left as at a normal stop. After
a fault (an exception that no rule expects) the in-flight set stays on disk, so that the next start
handles the records in it in quarantine.
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
from consumer.registry.fetching import RegistrySchemas
from consumer.telemetry.outages import Outages
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
    schemas: RegistrySchemas | None = None


class Pipeline:
    """Starts the threads, stops them in order, and reports the error that ended them."""

    def __init__(
        self, parts: PipelineParts, state: PipelineState, *, outages: Outages, stop_timeout_seconds: float
    ) -> None:
        self._parts = parts
        self._state = state
        self._outages = outages
        self._stop_timeout = stop_timeout_seconds
        self._threads = {
            "writer": self._thread("writer", lambda: parts.writing.run(state)),
            "encoder": self._thread("encoder", lambda: parts.encoding.run(state)),
            "intake": self._thread("intake", lambda: parts.intake.run(state)),
        }

    def start(self) -> None:
        self._parts.references.start()
        if self._parts.schemas is not None:
            self._parts.schemas.start()
        for thread in self._threads.values():
            thread.start()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until the pipeline is to stop; False after the timeout."""
        return self._state.wait(timeout_seconds)

    def finish(self) -> None:
        """Stop within `stop_timeout_seconds`, intake first: when it leaves the group, all shards commit.

        Raises the error that ended the pipeline, if there was one.
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
        if self._parts.schemas is not None:
            self._parts.schemas.close(max(deadline - time.monotonic(), 0.0))
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
    def encoder_drift(self) -> str | None:
        """What is wrong with the encoder's embeddings; None if they fit those of the index."""
        return self._parts.encoding.drift

    @property
    def is_writable(self) -> bool:
        """Whether every shard can be written; false while one waits for its disk."""
        return not self._parts.writing.is_failing

    @property
    def outages(self) -> list[str]:
        """What the threads wait for: log and disk, wherever a step of theirs fails and is tried again."""
        return self._outages.problems

    @property
    def waiting_partitions(self) -> tuple[str, ...]:
        """Why partitions wait because of a record that this process cannot handle."""
        return self._parts.intake.waiting

    @property
    def dead_threads(self) -> list[str]:
        dead = [name for name, thread in self._threads.items() if not thread.is_alive()]
        if not self._parts.references.is_running:
            dead.append("references")
        if self._parts.schemas is not None and not self._parts.schemas.is_running:
            dead.append("schema-registry")
        return dead

    @property
    def dead_pool(self) -> str | None:
        return self._parts.preparation.problem

    @property
    def seconds_since_poll(self) -> float:
        return self._parts.intake.turns.seconds_since

    @property
    def seconds_since_turn(self) -> dict[str, float]:
        """How long ago each loop last turned; of preparation, for how long one step lasts."""
        return {
            "writer": self._parts.writing.turns.seconds_since,
            "encoder": self._parts.encoding.turns.seconds_since,
            "references": self._parts.references.seconds_since_turn,
            "preparation": self._parts.preparation.seconds_in_step,
        }

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
