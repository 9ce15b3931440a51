"""A half of CLIP on a GPU, whose passes all have the same shape.

There a pass of many rows takes hardly longer than one of a single row. So each pass is filled up to one
size, and the same kernels treat every row, whatever it is encoded together with. Pixels go over as bytes,
from pinned memory. Meanwhile other threads decode pictures, because torch holds no lock of Python's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_index.encoder.open_clip.towers import Tower


class FixedBatchTower:
    """Passes rows to a tower on another device, always `num_rows` at once; thread-safe."""

    def __init__(self, tower: Tower, device: torch.device, num_rows: int) -> None:
        self._tower = tower
        self._device = device
        self._num_rows = num_rows

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the embeddings of a batch in the processor's memory, and leave them there too."""
        return torch.cat([self._pass(rows) for rows in torch.split(batch, self._num_rows)])

    def _pass(self, rows: Tensor) -> Tensor:
        missing = self._num_rows - len(rows)
        filled = torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows
        if self._device.type == "cuda":
            filled = filled.pin_memory()
        embeddings = self._tower(filled.to(self._device, non_blocking=True))
        return embeddings[: len(rows)].cpu()
