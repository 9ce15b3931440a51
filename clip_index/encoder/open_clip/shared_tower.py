"""A batch cut into shares that are computed side by side, each on one processor.

Split inside its operators, a batch has torch's threads wait for each other several hundred
times; and oneDNN does not split matrices of 500 to 1300 rows at all. Shares meet once, at the end.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor

from clip_index.encoder.open_clip.towers import Tower


class SharedTower:
    """A tower whose larger batches are shared among as many threads as torch has; thread-safe.

    Each share reads all weights again, so that one of fewer rows than `min_share` does not pay.
    """

    def __init__(self, tower: Tower, *, min_share: int) -> None:
        self._tower = tower
        self._min_share = min_share
        self._num_threads = torch.get_num_threads()
        self._threads = _start_threads(self._num_threads)

    def __call__(self, batch: Tensor) -> Tensor:
        num_shares = count_shares(len(batch), self._num_threads, self._min_share)
        if num_shares == 1:
            return self._tower(batch)
        return torch.cat(list(self._threads.map(self._encode, batch.tensor_split(num_shares))))

    @torch.inference_mode()  # counts for the thread it is entered in
    def _encode(self, share: Tensor) -> Tensor:
        return self._tower(share)


def count_shares(num_rows: int, num_threads: int, min_share: int) -> int:
    """One, which is not shared at all, or as many for each thread, up to twice the least size."""
    if num_threads == 1 or num_rows < num_threads * min_share:
        return 1
    return num_threads * math.ceil(num_rows / (2 * num_threads * min_share))


def _start_threads(num_threads: int) -> ThreadPoolExecutor:
    """Start threads in each of which torch computes on one processor."""
    have_started = Barrier(num_threads + 1)

    def start() -> None:
        torch.get_num_threads()  # at its first use in a thread torch takes over the number of the process
        torch.set_num_threads(1)
        have_started.wait()

    threads = ThreadPoolExecutor(num_threads, "encoder", initializer=start)
    for _ in range(num_threads):
        threads.submit(int)  # starts a thread, since none is idle before all have started
    have_started.wait()
    # the setting counts for the calling thread and for threads to come: the latter must not compute on one
    torch.set_num_threads(num_threads)
    return threads
