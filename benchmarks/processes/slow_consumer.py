"""`python -m benchmarks.processes.slow_consumer`: the consumer with the generated encoder, on a slow disk.

Each fsync of its process takes `FSYNC_SECONDS` longer. Merges run in another process, as fast as ever.
"""

from __future__ import annotations

import os
import time

from benchmarks.processes.generated_encoder import GeneratedEncoder
from consumer.__main__ import run

FSYNC_SECONDS = 0.005


def slow_down_fsync(seconds: float) -> None:
    """Let every later fsync of this process take longer; other threads go on meanwhile."""
    fsync = os.fsync

    def fsync_slowly(descriptor: int) -> None:
        time.sleep(seconds)
        fsync(descriptor)

    setattr(os, "fsync", fsync_slowly)  # noqa: B010 - an assignment would have to take what os.fsync takes


if __name__ == "__main__":
    slow_down_fsync(FSYNC_SECONDS)
    os._exit(run(lambda settings: GeneratedEncoder()))
