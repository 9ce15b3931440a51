"""Merges without a child process: read at the start, done when the test says so."""

from __future__ import annotations

from clip_index.writing.merge import MergeJob, MergeResult, run_merge
from clip_index.writing.merge_worker import MergeLanes, MergeWorker


class InlineWorker(MergeWorker):
    """Runs a merge in place when it is started, and hands it over when `is_released`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_released = False
        self._result: MergeResult | None = None

    def start(self, job: MergeJob) -> None:
        self._job, self._result = job, run_merge(job)

    def poll(self) -> MergeResult | None:
        if self._job is None or not self.is_released:
            return None
        self._job, result = None, self._result
        return result

    def kill(self) -> None:
        self._job = self._result = None


class InlineLanes(MergeLanes):
    def __init__(self) -> None:
        self.workers: list[InlineWorker] = []
        super().__init__(self._new_worker)

    def release(self, *, is_released: bool) -> None:
        """Let merges end at the next `maintain`, or hold them back."""
        for worker in self.workers:
            worker.is_released = is_released

    def _new_worker(self) -> InlineWorker:
        self.workers.append(InlineWorker())
        return self.workers[-1]
