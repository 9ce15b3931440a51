"""Runs merges in a child process, which has a low priority at first and can be killed at any time.

The child is `python -m clip_index.writing.merge_worker`. It reads one JSON job a line from
standard input and writes one JSON answer a line to standard output. It ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

import numpy as np

from clip_index.errors import BrokenEmbeddings, ClipIndexError, DamagedFile
from clip_index.generations.manifest import SEGMENTS
from clip_index.generations.manifest_format import segment_fields, segment_from_fields
from clip_index.storage.index_roots import store_fields, store_from_fields
from clip_index.storage.mapped_array import PARSING_HEADERS
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.erasure import ErasureBudget
from clip_index.writing.late_verification import LateVerification
from clip_index.writing.merge import MergeJob, MergeResult, run_merge
from clip_index.writing.merge_policy import LOWEST_PRIORITY, MergeLane

_GREATEST_NICENESS = 19
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class MergeFailed(ClipIndexError):
    """The child could not be started, reported an error or died. Nothing was committed."""


class SegmentNotMerged(MergeFailed):
    """The merge fails as long as it takes this segment with the rows that are alive in it now."""

    def __init__(self, detail: str, segment_id: str) -> None:
        super().__init__(detail)
        self.segment_id = segment_id


class MergeTooLarge(MergeFailed):
    """The child had not enough memory, or was killed as the kernel does when there is none left."""


class MergeWorker:
    """One child process that runs one merge at a time. Owned by one thread.

    `niceness` is that of its merges above the niceness of this process.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._job: MergeJob | None = None
        self.niceness = LOWEST_PRIORITY

    @property
    def job(self) -> MergeJob | None:
        """The merge that is running, None while the worker is free."""
        return self._job

    def start(self, job: MergeJob) -> None:
        """Begin a merge, and start the child if there is none. The worker must be free.

        Raises `MergeFailed` if the system has no process or memory for a child, or if the child
        has just died.
        """
        if self._job is not None:
            raise RuntimeError("the worker is busy")
        if self._child is not None and self._child.poll() is not None:
            self.kill()  # the child is dead: close its pipes
        if self._child is not None and not _renice(self._child.pid, self.niceness):
            self.kill()  # the system lets it become slower, never faster: begin with another one
        fields = {**_job_fields(job), "row_maps": str(_row_maps_path(job))}
        try:
            if self._child is None:
                self._child = _start_child()
                _renice(self._child.pid, self.niceness)
            _pipe(self._child.stdin).write(json.dumps(fields).encode() + b"\n")
        except OSError as error:
            self.kill()
            raise MergeFailed(f"{job.store.name}: a merge could not be started: {error}") from error
        self._job = job

    def set_niceness(self, niceness: int) -> None:
        """Give merges this niceness above that of this process: later ones, and the running one if allowed.

        Without a privilege (`CAP_SYS_NICE`) a process may only raise a niceness. Then a running merge that
        is to become faster stays as it is, and the next merge runs in a new child.
        """
        self.niceness = niceness
        if self._job is not None and self._child is not None:
            _renice(self._child.pid, niceness)

    def hurry(self, niceness: int) -> None:
        """Let the running merge become faster, never slower: others may wait for it, too."""
        if niceness < self.niceness:
            self.set_niceness(niceness)

    def poll(self) -> MergeResult | None:
        """Return the result if the running merge has ended, else None; `MergeFailed` if it failed."""
        if self._job is None or self._child is None:
            return None
        output = _pipe(self._child.stdout)
        if not _has_input(output):
            return None
        job, self._job = self._job, None
        try:
            line = output.readline()
            return _result(job, line) if line else self._raise_death(job)
        except OSError as error:
            raise MergeFailed(
                f"{job.store.name}: the result of a merge could not be read: {error}"
            ) from error

    def _raise_death(self, job: MergeJob) -> NoReturn:
        signalled = self._child.wait() if self._child is not None else 0
        if signalled == -signal.SIGKILL:  # this class kills it too, but then asks it nothing more
            raise MergeTooLarge(
                f"{job.store.name}: the merge process died: it was killed, perhaps for its memory"
            )
        raise MergeFailed(f"{job.store.name}: the merge process died")

    def kill(self) -> None:
        """Kill the child at once. A running merge leaves only garbage behind."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                _pipe(pipe).close()
        self._child = self._job = None


class MergeLanes:
    """One worker for each lane, the budget for erasing, and the thread of late verification.

    All shards of a process share them.
    """

    def __init__(
        self, new_worker: Callable[[], MergeWorker] = MergeWorker, erasure: ErasureBudget | None = None
    ) -> None:
        self.erasure = erasure or ErasureBudget()
        self.verification = LateVerification()
        self._workers = {lane: new_worker() for lane in MergeLane}

    def worker(self, lane: MergeLane) -> MergeWorker:
        return self._workers[lane]

    def running(self, store: ShardStore) -> dict[MergeLane, MergeWorker]:
        """Return the workers that are merging for the shard of this store."""
        return {
            lane: worker
            for lane, worker in self._workers.items()
            if worker.job and worker.job.store.address == store.address
        }

    def close(self) -> None:
        self.verification.close()
        for worker in self._workers.values():
            worker.kill()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the child was started without pipes")
    return pipe


def _renice(child_pid: int, niceness: int) -> bool:
    """Give the child a niceness above this process's own; False if the system refuses that."""
    wanted = min(os.getpriority(os.PRIO_PROCESS, 0) + niceness, _GREATEST_NICENESS)
    try:
        if os.getpriority(os.PRIO_PROCESS, child_pid) != wanted:
            os.setpriority(os.PRIO_PROCESS, child_pid, wanted)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass  # it has just died, as its pipe will tell
    return True


def _has_input(pipe: IO[bytes]) -> bool:
    poll = select.poll()  # select() does not take file descriptors above 1023
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(0))


def _start_child() -> subprocess.Popen[bytes]:
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "clip_index.writing.merge_worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def _row_maps_path(job: MergeJob) -> Path:
    return job.store.staging_path(f"{SEGMENTS}/rows-{uuid4().hex}.npz")


def _job_fields(job: MergeJob) -> dict[str, Any]:
    return {
        "store": store_fields(job.store),
        "generation": job.generation,
        "segment_ids": job.segment_ids,
        "merged_id": job.merged_id,
        "started_ms": job.started_ms,
        "target_recall": job.target_recall,
        "vectors": job.vectors,
        "siblings": [store_fields(store) for store in job.siblings],
    }


def _result(job: MergeJob, line: bytes) -> MergeResult:
    answer = json.loads(line)
    if "damaged" in answer:
        raise DamagedFile(answer["damaged"], answer["error"])
    if "segment" in answer:
        raise SegmentNotMerged(f"{job.store.name}: {answer['error']}", answer["segment"])
    if "too_large" in answer:
        raise MergeTooLarge(f"{job.store.name}: not enough memory for a merge: {answer['too_large']}")
    if "error" in answer:
        raise MergeFailed(f"{job.store.name}: {answer['error']}")
    path = Path(answer["row_maps"])
    with PARSING_HEADERS, np.load(path, allow_pickle=False) as arrays:
        row_maps = {name: arrays[name] for name in arrays.files}
    path.unlink()
    entry = segment_from_fields(answer["entry"]) if answer["entry"] else None
    return MergeResult(entry, row_maps)


def _answer(line: bytes) -> dict[str, Any]:
    """Run one job in the child."""
    fields = json.loads(line)
    row_maps = fields.pop("row_maps")
    fields["store"] = store_from_fields(fields["store"])
    fields["segment_ids"] = tuple(fields["segment_ids"])
    fields["siblings"] = tuple(map(store_from_fields, fields["siblings"]))
    try:
        result = run_merge(MergeJob(**fields))
        arrays: dict[str, Any] = dict(result.row_maps)
        np.savez(row_maps, **arrays)
    except DamagedFile as error:
        return {"damaged": error.file, "error": error.detail}
    except BrokenEmbeddings as error:
        return {"segment": error.segment_id, "error": str(error)}
    except MemoryError as error:
        return {"too_large": str(error) or "MemoryError"}
    except Exception as error:  # noqa: BLE001 - whatever it is, the log of the consumer must say it
        return {"error": f"{type(error).__name__}: {error}"}
    return {"entry": segment_fields(result.entry) if result.entry else None, "row_maps": row_maps}


def _serve(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):  # out of memory, kill this process first: a merge can be repeated
            Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent_pid:
        return  # the parent died before prctl, so the kernel will not kill this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_answer(line)).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
