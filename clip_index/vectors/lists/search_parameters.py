"""FAISS's parameters of searches in lists. Building them takes some ten microseconds, so a few are kept."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

_MAX_KEPT = 64
"""Half a kilobyte each. Without clusters, queries scan any number of lists up to all."""


class SearchParameters:
    """Parameters by how many lists a search scans. Thread-safe."""

    def __init__(self, bitmap: NDArray[np.uint8] | None = None) -> None:
        """With a `bitmap` a search finds only the nodes whose bits are set."""
        self._bitmap = bitmap
        self._kept: dict[int, Any] = {}

    def of(self, num_probed: int) -> Any:
        """Return FAISS's parameters for a search of so many lists."""
        known = self._kept.get(num_probed)
        if known is not None:
            return known
        if len(self._kept) >= _MAX_KEPT:
            self._kept = {}
        built = self._kept[num_probed] = faiss.SearchParametersIVF(nprobe=num_probed, sel=self._selector)
        return built

    @cached_property
    def _selector(self) -> Any:
        return None if self._bitmap is None else faiss.IDSelectorBitmap(self._bitmap)
