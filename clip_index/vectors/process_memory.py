"""Items of one size, read from wherever they lie in the memory of this process.

Large arrays of many files are mapped one by one. What a search needs of them is a few items of each. Read by
their addresses, these take one call of numpy for all files together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOWEST_ADDRESS = 4096
_ADDRESSES = 2**48  # that a process has: 2**47 on x86-64, twice as many on ARM


class ProcessMemory:
    """Every address of the process as the beginning of an item of some bytes.

    Only addresses of items may be read, and only while somebody keeps their memory.
    """

    def __init__(self, item_size: int) -> None:
        self._items = np.asarray(_Items(item_size))

    def read(self, addresses: NDArray[np.int64]) -> NDArray[Any]:
        """Return copies of the items at the addresses, (n,), as bytes of a `void` type."""
        items: NDArray[Any] = self._items[addresses - _LOWEST_ADDRESS]
        return items


def address_of(array: NDArray[Any]) -> int:
    """Return where the first item of an array lies."""
    address: int = array.__array_interface__["data"][0]
    return address


class _Items:
    def __init__(self, item_size: int) -> None:
        self.__array_interface__ = {
            "shape": (_ADDRESSES - _LOWEST_ADDRESS,),
            "typestr": f"|V{item_size}",
            "strides": (1,),
            "data": (_LOWEST_ADDRESS, True),
            "version": 3,
        }
