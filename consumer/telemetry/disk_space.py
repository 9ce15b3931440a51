"""How much room the disk of the index has, asked so that a disk that does not answer holds up nothing."""

from __future__ import annotations

import math
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

_PATIENCE_SECONDS = 0.5


class Space(NamedTuple):
    """Bytes of a file system. Not numbers while it does not answer."""

    total: float
    free: float


_UNKNOWN = Space(math.nan, math.nan)


class DiskSpace:
    """Asks in a thread, because a scrape must not hang with the disk. One asks at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asking: threading.Thread | None = None
        self._space = _UNKNOWN

    def ask(self) -> Space:
        """Return the room that there is now."""
        if self._asking is not None and self._asking.is_alive():
            return _UNKNOWN
        self._asking = threading.Thread(target=self._ask, name="disk space", daemon=True)
        self._asking.start()
        self._asking.join(_PATIENCE_SECONDS)
        return _UNKNOWN if self._asking.is_alive() else self._space

    def _ask(self) -> None:
        try:
            usage = shutil.disk_usage(self._path)
        except OSError:
            self._space = _UNKNOWN
        else:
            self._space = Space(float(usage.total), float(usage.free))
