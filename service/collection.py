"""When Python looks for garbage in cycles."""

from __future__ import annotations

import gc

_ALLOCATIONS, _YOUNG_PASSES, _MIDDLE_PASSES = 10_000, 20, 20


def spare_what_stays() -> None:
    """Leave what the process has loaded so far, which it keeps, out of every later collection.

    Modules and models are some hundred thousand objects; walking them whenever a stream of
    short-lived ones has passed took a fifth of the consumer's time. What comes later is
    looked through less often too: hardly anything here is a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, _YOUNG_PASSES, _MIDDLE_PASSES)
