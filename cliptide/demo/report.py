"""The demo's figures, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from cliptide.demo.questions import AnsweredQuery, K
from cliptide.demo.uploads.freshness import percentile

MIN_PRECISION = 0.9


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The figures of one run. `searchable` counts the published ids that the query service returned."""

    published: int
    searchable: int
    dead_letters: int
    published_per_second: float
    seconds: float
    searchable_after_seconds: Sequence[float]
    precision: float

    @property
    def lost(self) -> int:
        return self.published - self.searchable

    @property
    def is_good(self) -> bool:
        return self.lost == 0 and self.precision >= MIN_PRECISION

    def as_json(self) -> str:
        values = list(self.searchable_after_seconds)
        fields: dict[str, Any] = {
            "published": self.published,
            "searchable": self.searchable,
            "dead_letters": self.dead_letters,
            "lost": self.lost,
            "seconds": round(self.seconds, 2),
            "searchable_after_event_seconds": {
                "p50": round(percentile(values, 0.50), 3),
                "p99": round(percentile(values, 0.99), 3),
            },
            "precision_at_8": round(self.precision, 3),
        }
        return json.dumps(fields)

    def in_words(self) -> str:
        """Say the figures, and what they measure."""
        values = list(self.searchable_after_seconds)
        return (
            f"{self.searchable:,} of {self.published:,} uploads are searchable, {self.lost:,} lost, "
            f"{self.dead_letters:,} dead letters, {self.seconds:.1f} s in all.\n"
            "From the broker's acknowledgement to being searchable: half of them within "
            f"{percentile(values, 0.50):.2f} s, 99 % within {percentile(values, 0.99):.2f} s.\n"
            f"(Published at {self.published_per_second:.0f} uploads a second, without waiting for the "
            "services. The demo looks at the index every 20 ms.)"
        )


def build_answers_table(answered: Sequence[AnsweredQuery]) -> Table:
    """Build one line for each query: how many of its hits are right, and the two best hits."""
    table = Table(title="sample queries", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("query", overflow="fold")
    table.add_column(f"right of {K}", justify="right")
    table.add_column("best hits (score)", overflow="fold")
    for one in answered:
        best = ", ".join(f"{hit.content_id} ({hit.score:.2f})" for hit in one.hits[:2])
        table.add_row(one.title, str(one.num_right), best or "nothing found")
    return table
