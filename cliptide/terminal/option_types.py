"""Types of flags that refuse, before any work, what click would let pass."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click


class NumberRange(click.FloatRange):
    """A number within bounds. NaN is none: every comparison with it is false, so it would pass any check."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class OutputFile(click.Path):
    """A file that is written at the end, perhaps after hours. So its folder is looked at beforehand."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        file = Path(os.fsdecode(super().convert(value, param, ctx)))
        folder = file.parent
        if not folder.is_dir():
            self.fail(f"there is no folder {str(folder)!r} to write it to.", param, ctx)
        if not file.exists() and not os.access(folder, os.W_OK):
            self.fail(f"nothing may be written to the folder {str(folder)!r}.", param, ctx)
        return file
