"""Which lists a query scans, and what else was measured for the lists of a segment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from clip_index.errors import DamagedFile
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import ByteSink

_ALWAYS_WRITTEN = ("gap", "usual_lists")


@dataclass(frozen=True, slots=True)
class Effort:
    """Which lists a query scans.

    `gap` is how far below the nearest centroid's score (a cosine) a scanned list's centroid may score, if
    these lists are few. Beyond, where the spread around the centroids is known (`Spread`), a query scans the
    lists in which all but a share `left_out` of its ten best nodes are expected; or `least_left_out`, if it
    would scan more than `most_lists` otherwise. Where `left_out` is 0, because the spread is not known or
    nothing may be left out, the gap counts for all queries. So it does for a query that expects its best in
    few of the lists within it.

    `usual_lists` is how many lists nine of ten queries scan. Where the lists hold quantised embeddings, a
    score by these is off by up to `code_error`; else it is 0.

    Where codes lie beside the lists, a score by these is too low by up to `scan_deviations` of those that
    the codebook tells for a query, and nine of ten queries take up to `scan_candidates` from them; else both
    are 0.
    """

    gap: float
    usual_lists: int
    code_error: float = 0.0
    scan_deviations: float = 0.0
    scan_candidates: int = 0
    left_out: float = 0.0
    least_left_out: float = 0.0
    most_lists: int = 0


UNCALIBRATED = Effort(gap=0.1, usual_lists=64)
"""For lists that were built before there was a calibration: wide enough for unclustered embeddings."""


def write_effort(file: ByteSink, effort: Effort) -> None:
    fields = {name: value for name, value in asdict(effort).items() if value or name in _ALWAYS_WRITTEN}
    file.write(json.dumps(fields).encode())


def read_effort(part: MappedPart) -> Effort:
    """Read what `write_effort` wrote; fields of later versions are ignored."""
    try:
        fields = json.loads(part.data.to_pybytes())
        return Effort(
            float(fields["gap"]),
            int(fields["usual_lists"]),
            float(fields.get("code_error", 0.0)),
            float(fields.get("scan_deviations", 0.0)),
            int(fields.get("scan_candidates", 0)),
            float(fields.get("left_out", 0.0)),
            float(fields.get("least_left_out", 0.0)),
            int(fields.get("most_lists", 0)),
        )
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise DamagedFile(part.path, f"unexpected content ({error!r})") from error
