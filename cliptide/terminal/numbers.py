"""Numbers of flags: a range that holds neither infinity nor what is not a number."""

from __future__ import annotations

import math
from typing import Any

import click

LARGEST = 2**63 - 1  # of a version in an event, and of a count that is worth waiting for


class FiniteRange(click.FloatRange):
    """click takes `nan` for a number of every range, and `inf` for one of each that has no upper end.

    No time-out, rate or share means anything then: a comparison with `nan` is false, whatever it is with.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
