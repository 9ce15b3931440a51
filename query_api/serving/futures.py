"""Futures of requests whose work was done together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def settle_each(futures: Sequence[asyncio.Future[_T]], outcomes: Sequence[_T | BaseException]) -> None:
    """Give each future its outcome, an exception as its error. A request that went away gets none."""
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
