"""Says what a command waits for, once it has waited for two seconds. Silence looks like a hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

TOLD_AFTER_SECONDS = 2.0


def tell(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def waiting_told(
    what: str, *, after_seconds: float | None = None, say: Callable[[str], None] = tell
) -> Iterator[None]:
    """Say once that the command waits for something, if the block is still running after two seconds."""
    seconds = TOLD_AFTER_SECONDS if after_seconds is None else after_seconds
    timer = threading.Timer(seconds, say, [f"waiting for {what} …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
