"""A batch is cut into shares that are computed in parallel, each on one processor.

torch itself would split each operator among its threads. They would wait for each other several
hundred times in a batch, and oneDNN does not split matrices of 500 to 1300 rows at all. Shares
wait for each other once, at the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clip_index.encoder.open_clip.single_threads import single_threads
from clip_index.encoder.open_clip.towers import Tower


class SharedTower:
    """A tower that shares large batches among as many threads as torch has; thread-safe.

    Each share reads all weights again, so a share of fewer than `min_share` rows does not pay.
    """

    def __init__(self, tower: Tower, *, min_share: int) -> None:
        self._tower = tower
        self._min_share = min_share
        self._num_threads = torch.get_num_threads()
        self._threads = single_threads(self._num_threads)

    def __call__(self, batch: Tensor) -> Tensor:
        num_shares = count_shares(len(batch), self._num_threads, self._min_share)
        if num_shares == 1:
            return self._tower(batch)
        return torch.cat(list(self._threads.map(self._encode, batch.tensor_split(num_shares))))

    @torch.inference_mode()  # a setting of the thread that enters it
    def _encode(self, share: Tensor) -> Tensor:
        return self._tower(share)


def count_shares(num_rows: int, num_threads: int, min_share: int) -> int:
    """Return how many shares a batch is cut into: one if it is small, else a multiple of the threads.

    A share then has up to twice `min_share` rows.
    """
    if num_threads == 1 or num_rows < num_threads * min_share:
        return 1
    return num_threads * math.ceil(num_rows / (2 * num_threads * min_share))
