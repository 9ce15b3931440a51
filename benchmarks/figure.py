"""The parts of every figure: ratios of two sides that are timed in turn in one process tree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MIN_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. People read the rows of `table`; the JSON holds `details`."""

    name: str
    value: Any
    target: str
    holds: bool
    details: Mapping[str, Any] = field(default_factory=dict)
    table: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the ratios of all rounds, with the smallest and the greatest."""

    median: float
    minimum: float
    maximum: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.minimum:.2f} to {self.maximum:.2f})"

    def as_dict(self) -> dict[str, float]:
        return {"median": round(self.median, 4), "min": round(self.minimum, 4), "max": round(self.maximum, 4)}


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(rounds: int, *sides: Callable[[], object], num_warm_ups: int = 1) -> list[list[float]]:
    """Time the sides in turn, round by round, after a warm-up. Returns one list of seconds for each side."""
    for _ in range(num_warm_ups):
        for side in sides:
            side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for times, side in zip(seconds, sides, strict=True):
            times.append(seconds_of(side))
    return seconds


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Return the median of the rounds' ratios."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))
