"""Where the codes of the nodes of inverted lists lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.scattered_codes import ScatteredCodes


class ListedCodes(ScatteredCodes):
    """The codes of an index with inverted lists. Thread-safe."""

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self._lists = index.invlists
        self._first_codes = np.zeros(index.nlist, np.int64)
        """The address of each list's first code; 0 until somebody asks for it."""

    def addresses(self, lists: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the codes of nodes lie. Lists, positions in the lists, and addresses are (n,)."""
        return self._first_codes_of(lists) + positions * self.code_size

    def _first_codes_of(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the address of each list's first code. FAISS is asked once for a list."""
        found = self._first_codes[lists]
        if not found.all():
            for number in np.flatnonzero(np.bincount(lists[found == 0])).tolist():
                self._first_codes[number] = int(self._lists.get_codes(number))
            found = self._first_codes[lists]
        return found
