"""Wide and tall pictures as several crops, as long texts have several windows.

A model sees a square. Of a picture twice as wide as high, the square in the middle shows one half. So a
picture whose sides differ by more than 1.8 has a crop at each end too, and each crop has an embedding
of its own. The crop in the middle comes first, and is the same as without the others.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

DEFAULT_MAX_CROPS = 3
GREATEST_MAX_CROPS = 9
_LEAST_RATIO = 1.8  # pictures of 16:9 have one crop, which shows more than half of them
_WRITTEN = re.compile(r"\bcrops=(\d+)@[\d.]+$")


@dataclass(frozen=True, slots=True)
class Cropping:
    """At most this many crops of one picture, an odd number, because one of them is the middle."""

    max_crops: int = 1

    @classmethod
    def at_most(cls, max_crops: int) -> Cropping:
        """An even number counts as the odd one before it."""
        return cls(max(1, max_crops - 1 + max_crops % 2))

    def shifts(self, ratio: float) -> list[float]:
        """Return where the crops lie along the longer side: 0 is its beginning, 1 its end, the middle first.

        `ratio` is how many times a crop fits into that side. The crops show all of the picture if there
        may be as many.
        """
        if ratio <= _LEAST_RATIO or self.max_crops == 1:
            return [0.5]
        wanted = math.ceil(ratio)
        last = min(self.max_crops, wanted + 1 - wanted % 2) - 1
        return [0.5, *(step / last for step in range(last + 1) if 2 * step != last)]

    def written_behind(self, windowing: str) -> str:
        """Add the crops to the windowing of a fingerprint; one crop adds nothing, as in older indexes."""
        return windowing if self.max_crops == 1 else f"{windowing} crops={self.max_crops}@{_LEAST_RATIO}"


def max_crops_of(windowing: str) -> int:
    """Return the most crops of a picture in an index whose fingerprint has this windowing."""
    written = _WRITTEN.search(windowing)
    return int(written.group(1)) if written else 1


def without_crops(windowing: str) -> str:
    """Return the windowing of texts alone."""
    return _WRITTEN.sub("", windowing).rstrip()
