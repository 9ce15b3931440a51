"""How much space is free on a disk that may not answer."""

from __future__ import annotations

import math
import shutil
import threading
from pathlib import Path

_PATIENCE_SECONDS = 0.5


class FreeSpace:
    """Asks in a thread, because a scrape must not hang with the disk. One asks at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asking: threading.Thread | None = None
        self._num_bytes = math.nan

    def num_bytes(self) -> float:
        """Return the bytes that are free now; not a number while the disk does not answer."""
        if self._asking is not None and self._asking.is_alive():
            return math.nan
        self._asking = threading.Thread(target=self._ask, name="free space", daemon=True)
        self._asking.start()
        self._asking.join(_PATIENCE_SECONDS)
        return math.nan if self._asking.is_alive() else self._num_bytes

    def _ask(self) -> None:
        try:
            self._num_bytes = float(shutil.disk_usage(self._path).free)
        except OSError:
            self._num_bytes = math.nan
