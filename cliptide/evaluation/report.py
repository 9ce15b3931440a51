"""The result of an evaluation: as tables for a person, as JSON for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cliptide.pairs.gallery import Gallery, RightAnswers
from cliptide.pairs.quality import MEASURES, Quality, TwoWayQuality, difference, members_by_value
from cliptide.terminal.plain_text import plain

NUM_SLICES_SHOWN = 20
_TITLES = {"text_to_image": "text to image", "image_to_text": "image to text"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured. `against` is the quality of a second model on the same queries."""

    name: str
    quality: TwoWayQuality
    gallery: Gallery
    against_name: str = ""
    against: TwoWayQuality | None = None
    slice_keys: Sequence[str] = ()
    num_samples: int = 1_000
    notes: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = self.quality.as_json()
        found["intervals"] = {
            name: quality and quality.intervals(self.num_samples)
            for name, quality in self.quality.by_direction.items()
        }
        if self.slice_keys:
            found["slices"] = {key: self._slices(key) for key in self.slice_keys}
        if self.against is not None:
            found["against"] = {"model": self.against_name, **self.against.as_json()}
            found["difference"] = {name: _gap(*pair, self.num_samples) for name, pair in self._both().items()}
        return {**found, **self.notes}

    def print(self, console: Console) -> None:
        """Print a table for each direction, and one for each slice key."""
        for direction, quality in self.quality.by_direction.items():
            if quality is None:
                console.print(f"{_TITLES[direction]}: no query has an answer here", highlight=False)
            else:
                console.print(self._table(direction, quality))
        for key in self.slice_keys:
            for direction in _TITLES:
                console.print(self._slice_table(key, direction))

    def _table(self, direction: str, quality: Quality) -> Table:
        table = Table(
            title=f"{_TITLES[direction]}, {len(quality.scores):,} queries",
            title_justify="left",
            box=box.SIMPLE,
        )
        columns = ["measure", self.name, "95 % interval"]
        columns += [self.against_name, "difference", "95 % interval"] if self.against is not None else []
        for column in columns:
            table.add_column(plain(column), overflow="fold")
        intervals = quality.intervals(self.num_samples)
        other = self.against.by_direction[direction] if self.against is not None else None
        for name in MEASURES:
            cells = [name, f"{quality.figures[name]:.3f}", _interval(intervals.get(name))]
            table.add_row(*cells, *(_against_cells(quality, other, name, self.num_samples) if other else ()))
        return table

    def _slice_table(self, key: str, direction: str) -> Table:
        title = f"{_TITLES[direction]} by {key}"
        table = Table(title=plain(title), title_justify="left", box=box.SIMPLE)
        for column in ("value", "queries", *MEASURES):
            table.add_column(column)
        found: Mapping[str, Any] = self._slices(key)[direction]
        for value, figures in list(found.items())[:NUM_SLICES_SHOWN]:
            cells = [f"{figures[name]:.3f}" for name in MEASURES]
            table.add_row(plain(value), f"{figures['num_queries']:,}", *cells)
        if len(found) > NUM_SLICES_SHOWN:
            table.caption = f"and {len(found) - NUM_SLICES_SHOWN:,} smaller ones (see --json)"
        return table

    def _slices(self, key: str) -> dict[str, Any]:
        rights = {
            "text_to_image": self.gallery.text_to_image(),
            "image_to_text": self.gallery.image_to_text(),
        }
        return {
            direction: _figures_by_value(quality, rights[direction], key, self.num_samples)
            for direction, quality in self.quality.by_direction.items()
        }

    def _both(self) -> dict[str, tuple[Quality | None, Quality | None]]:
        other = self.against.by_direction if self.against is not None else {}
        return {name: (quality, other.get(name)) for name, quality in self.quality.by_direction.items()}


def _figures_by_value(
    quality: Quality | None, right: RightAnswers, key: str, num_samples: int
) -> dict[str, dict[str, Any]]:
    if quality is None:
        return {}
    return {
        value: {
            "num_queries": sum(members),
            **quality.slice(members).figures,
            "intervals": quality.slice(members).intervals(num_samples),
        }
        for value, members in members_by_value(right, key).items()
    }


def _gap(ours: Quality | None, theirs: Quality | None, num_samples: int) -> dict[str, Any] | None:
    if ours is None or theirs is None:
        return None
    figures, intervals = difference(ours, theirs, num_samples)
    return {**figures, "intervals": intervals}


def _against_cells(ours: Quality, theirs: Quality, name: str, num_samples: int) -> tuple[str, str, str]:
    figures, intervals = difference(ours, theirs, num_samples)
    return f"{theirs.figures[name]:.3f}", f"{figures[name]:+.3f}", _interval(intervals.get(name), "+")


def _interval(bounds: tuple[float, float] | None, sign: str = "") -> str:
    return "" if bounds is None else f"{bounds[0]:{sign}.3f} to {bounds[1]:{sign}.3f}"
