"""The writer thread: owns every shard of the process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import structlog

from clip_index.errors import Fenced
from consumer.errors import ConsumerFault
from consumer.notices import Notices, ShardFenced
from consumer.pipeline_state import PipelineState
from consumer.tasks import AssignedPartition, CaughtUp, Handover
from consumer.telemetry.metrics import Metrics
from consumer.turns import Turns
from consumer.writing.commit_policy import CommitPolicy
from consumer.writing.owned_shard import OwnedShard
from consumer.writing.shard_writer import Shards
from consumer.writing.side_by_side import SideBySide

ResultT = TypeVar("ResultT")
_Turn: TypeAlias = Generator[Callable[[], object], None, None]
_log = structlog.get_logger(__name__)
_BUSY_WAIT_SECONDS = 0.01
_IDLE_WAIT_SECONDS = 0.25
_ROOM_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """Above one of these bounds the encoder thread waits.

    `max_waiting_bytes` bounds the handovers that are not added. It must be enough for the time in
    which other shards commit, which depends on the disk: with a bound of a few dozen handovers the
    encoder stood still. `max_buffered_bytes` bounds what is added and not committed.
    """

    max_waiting_bytes: int = 32 * 1024 * 1024
    max_buffered_bytes: int = 128 * 1024 * 1024


class Writing:
    """Owns every shard of the process. `run` is the thread's body; other threads call the other methods."""

    def __init__(
        self,
        shards: Shards,
        *,
        policy: CommitPolicy,
        notices: Notices,
        metrics: Metrics,
        room: RoomLimits | None = None,
    ) -> None:
        self._shards = shards
        self._policy = policy
        self._notices = notices
        self._metrics = metrics
        self._room = room or RoomLimits()
        self._owned: dict[int, OwnedShard] = {}
        self._requests: deque[Callable[[], None]] = deque()
        self._handovers: deque[Handover] = deque()
        self._handed_bytes = 0
        self._commits = SideBySide()
        self._changed = threading.Condition()
        self._is_closing = False
        self.turns = Turns()

    def run(self, state: PipelineState) -> None:
        """Serve until closed, then close every shard without committing.

        `state` is told of an error first, because threads that ask this one learn only that it has ended.
        """
        try:
            while not self._is_closing:
                self.turns.mark()
                self._wait()
                self._serve_requests()
                self._accept_handovers()
                self._take_turns()
        except BaseException as error:
            state.fail(error)
            raise
        finally:
            self._end()

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def hand_over(self, handover: Handover, turns: Turns | None = None) -> None:
        """Queue a delta. Waits while the writer has no room, and marks the caller's turns meanwhile."""
        with self._changed:
            while not self._changed.wait_for(self._takes_handovers, _ROOM_WAIT_SECONDS):
                if turns is not None:
                    turns.mark()
            self._handovers.append(handover)
            self._handed_bytes += handover.size_bytes
            self._changed.notify_all()

    def _takes_handovers(self) -> bool:
        return self._handed_bytes < self._room.max_waiting_bytes or self._is_closing

    def open_shard(self, assigned: AssignedPartition) -> Future[int]:
        """Step 2 of a takeover: open the shard and become its owner (step 3).

        The future holds the shard's next offset, or the error that kept it from being opened.
        """
        return self._request(lambda: self._open(assigned))

    def release(self, partition: int, patience_seconds: float) -> Future[int | None]:
        """Commit what was handed over and close the shard.

        The future holds the committed next offset, None when the shard is not ours (any more).
        """
        return self._request(lambda: self._release(partition, patience_seconds))

    def drop(self, partition: int) -> Future[None]:
        """Close the shard without committing."""
        return self._request(lambda: self._drop(partition))

    def caught_up(self, caught_up: CaughtUp) -> None:
        self._request(lambda: self._note(caught_up))

    @property
    def is_failing(self) -> bool:
        """Whether a shard waits for its disk. Read without a lock, because readiness needs only a hint."""
        return any(shard.is_failing for shard in list(self._owned.values()))

    def _request(self, action: Callable[[], ResultT]) -> Future[ResultT]:
        answer: Future[ResultT] = Future()
        with self._changed:
            if self._is_closing:
                answer.set_exception(ConsumerFault("the writer thread has ended"))
                return answer
            self._requests.append(lambda: _answer(answer, action))
            self._changed.notify_all()
        return answer

    def _wait(self) -> None:
        is_busy = any(not shard.is_idle for shard in self._owned.values())
        timeout = _BUSY_WAIT_SECONDS if is_busy else _IDLE_WAIT_SECONDS
        with self._changed:
            self._changed.wait_for(self._has_work, timeout)

    def _has_work(self) -> bool:
        return bool(self._requests) or self._is_closing or (bool(self._handovers) and self._has_room())

    def _serve_requests(self) -> None:
        """Opening a large shard takes long, and a process may open many at once: each is a turn."""
        while self._requests:
            self.turns.mark()
            self._requests.popleft()()
        self.turns.mark()

    def _has_room(self) -> bool:
        shards = self._owned.values()
        waiting_bytes = sum(shard.waiting_bytes for shard in shards)
        buffered_bytes = sum(shard.buffered_bytes for shard in shards)
        return waiting_bytes < self._room.max_waiting_bytes and buffered_bytes < self._room.max_buffered_bytes

    def _accept_handovers(self) -> None:
        while self._handovers and self._has_room():
            self._accept_next()

    def _accept_next(self) -> None:
        """Pass a handover to its shard; drop it if it is of an earlier assignment."""
        with self._changed:
            handover = self._handovers.popleft()
            self._handed_bytes -= handover.size_bytes
            self._changed.notify_all()
        shard = self._owned.get(handover.partition)
        if shard is not None and shard.assignment_epoch == handover.assignment_epoch:
            shard.accept(handover)

    def _take_turns(self) -> None:
        """Give each shard its turn. The commits that are due are made side by side, after the rest.

        This thread waits for all of them, so nobody else uses a shard meanwhile. Each turn goes on with the
        error of its own commit: one shard's disk trouble delays no other shard's commit.
        """
        under_way: list[tuple[int, _Turn, Callable[[], object]]] = []
        for partition, shard in list(self._owned.items()):
            turn = shard.begin_turn()
            commit = self._go_on(partition, turn)
            if commit is not None:
                under_way.append((partition, turn, commit))
        if under_way:
            self.turns.mark()
            errors = self._commits.run([commit for _, _, commit in under_way])
            for (partition, turn, _), error in zip(under_way, errors, strict=True):
                self._go_on(partition, turn, error)

    def _go_on(
        self, partition: int, turn: _Turn, error: BaseException | None = None
    ) -> Callable[[], object] | None:
        """Continue a turn; return the commit that it wants to be made, None at its end."""
        self.turns.mark()
        try:
            return next(turn) if error is None else turn.throw(error)
        except StopIteration:
            return None
        except Fenced as fenced:
            self._fence_off(partition, fenced)
            return None

    def _fence_off(self, partition: int, error: Fenced) -> None:
        _log.warning("fenced, dropping the shard", shard=error.shard, found_epoch=error.found_epoch)
        self._metrics.shards_fenced.inc()
        shard = self._owned.pop(partition)
        shard.close()
        self._notices.put(ShardFenced(partition, shard.assignment_epoch))

    def _open(self, assigned: AssignedPartition) -> int:
        self._drop(assigned.partition)
        shard = OwnedShard(
            self._shards, assigned, policy=self._policy, metrics=self._metrics, notices=self._notices
        )
        assert shard.writer is not None
        self._owned[assigned.partition] = shard
        _log.info(
            "took over", shard=shard.shard, epoch=shard.writer.epoch, next_offset=shard.writer.next_offset
        )
        return shard.writer.next_offset

    def _release(self, partition: int, patience_seconds: float) -> int | None:
        while self._handovers:  # whatever their size, because everything encoded is to be committed
            self._accept_next()
        shard = self._owned.pop(partition, None)
        if shard is None:
            return None
        try:
            return shard.release(patience_seconds)
        except Fenced as error:
            self._metrics.shards_fenced.inc()
            _log.warning("fenced at release", shard=error.shard, found_epoch=error.found_epoch)
            shard.close()
            return None

    def _drop(self, partition: int) -> None:
        shard = self._owned.pop(partition, None)
        if shard is not None:
            shard.close()

    def _note(self, caught_up: CaughtUp) -> None:
        shard = self._owned.get(caught_up.partition)
        if shard is not None and shard.assignment_epoch == caught_up.assignment_epoch:
            shard.caught_up(caught_up)

    def _end(self) -> None:
        self.close()
        for partition in list(self._owned):
            self._drop(partition)
        self._commits.close()
        self._serve_requests()


def _answer(answer: Future[ResultT], action: Callable[[], ResultT]) -> None:
    try:
        answer.set_result(action())
    except Exception as error:  # noqa: BLE001 - the asking thread raises it
        answer.set_exception(error)
