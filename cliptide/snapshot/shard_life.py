"""Whether somebody seems to be writing to a shard, from what a consumer renews there."""

from __future__ import annotations

from pathlib import Path

from clip_index.generations.watermark import FILE_NAME as WATERMARK
from consumer.quarantine.inflight import FILE_NAME as IN_FLIGHT

ALIVE_WITHIN_SECONDS = 10.0


def seems_alive(shard_path: Path, now: float) -> bool:
    """A consumer renews its watermark each second, or names what it reads; `now` is of the same clock.

    One that waits (for its disk, for a reference) shows nothing.
    """
    return any(_is_recent(shard_path / name, now) for name in (WATERMARK, IN_FLIGHT))


def _is_recent(path: Path, now: float) -> bool:
    try:
        return now - path.stat().st_mtime < ALIVE_WITHIN_SECONDS
    except FileNotFoundError:
        return False
