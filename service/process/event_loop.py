"""The event loop of a service: uvloop's if it is installed, else asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run until `main` is done, as `asyncio.run` does, on uvloop where the operator has installed it."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    uvloop.run(main)
