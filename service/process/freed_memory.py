"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Give the pages that C's allocator keeps for later back to the system.

    Call it once a model is loaded, because reading and converting its weights frees as much memory again as
    they take; and once a model is not used any more. The GNU C library would keep the memory until the
    process ends. Another C library is left alone.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
