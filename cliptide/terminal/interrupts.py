"""Ctrl-C that Python would forget, because it came while Python called something that may not raise."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN_AFTER_SECONDS = 0.01


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Interrupt the main thread again where Python has only reported a `KeyboardInterrupt`.

    Python's import calls a weak reference's callback for each module, and a `__del__` may run anywhere.
    What they raise goes to `sys.unraisablehook`, and the program goes on. Nothing may be raised in that
    hook either, so another thread interrupts the main thread a moment later.
    """
    before = sys.unraisablehook

    def report(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        again = threading.Timer(_AGAIN_AFTER_SECONDS, _thread.interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = report
    try:
        yield
    finally:
        sys.unraisablehook = before
