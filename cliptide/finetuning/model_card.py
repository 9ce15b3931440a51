"""The model card: what a model was tuned from and on, with which settings, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from cliptide.finetuning.run import TuningResult
from cliptide.finetuning.settings import FinetuneSettings
from cliptide.pairs.checking import PairTally
from cliptide.pairs.quality import MEASURES, Quality, difference

NUM_SAMPLES = 1_000
_DIRECTIONS = {"text_to_image": "text to image", "image_to_text": "image to text"}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card tells beside the settings and the result."""

    start_model: str
    architecture: str
    source: str
    tally: PairTally
    num_long_captions: int
    device: str
    minutes: float


def card_json(facts: CardFacts, settings: FinetuneSettings, result: TuningResult) -> dict[str, Any]:
    """Return the card's values for programs."""
    return {
        "start_model": facts.start_model,
        "architecture": facts.architecture,
        "pairs": {
            "source": facts.source,
            "seen": facts.tally.num_seen,
            "skipped": facts.tally.reasons,
            "training": result.num_training,
            "held_out": result.start.num_pairs,
            "captions_of_several_windows": facts.num_long_captions,
        },
        "settings": settings.as_json(),
        "trained_weights": result.num_trained_weights,
        "epochs": len(result.progress.recalls),
        "best_epoch": result.progress.best_epoch,
        "start": result.start.as_json(),
        "tuned": result.tuned.as_json(),
        "written": result.mixed.as_json(),
    }


def build_card(facts: CardFacts, settings: FinetuneSettings, result: TuningResult, today: date) -> str:
    """Return the card as Markdown."""
    values = card_json(facts, settings, result)
    pairs: Mapping[str, Any] = values["pairs"]
    skipped = ", ".join(f"{reason} {count:,}" for reason, count in pairs["skipped"].items()) or "none"
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in settings.as_json().items())
    return f"""# A fine-tuned CLIP model

Tuned by `cliptide finetune` from `{facts.start_model}` ({facts.architecture}) on {today.isoformat()}, in \
{facts.minutes:.1f} minutes on {facts.device}. The consumer and the query service use this directory as it \
is: `CLIPTIDE_ENCODER__MODEL=DIR`. It is another model than its start, so it needs an index of its own.

## Data

- Source: {facts.source}
- Pairs: {pairs["seen"]:,} seen, {pairs["training"]:,} trained on, {pairs["held_out"]:,} held out by a \
hash of their pictures
- Skipped: {skipped}
- Captions of more than one window: {pairs["captions_of_several_windows"]:,} (training sees the first window)

## Measured on the held-out pairs

*Start* is the model before, *tuned* the best epoch ({result.progress.best_epoch} of \
{len(result.progress.recalls)}), and *written* the model in this directory: {settings.mix:g} tuned and \
{1 - settings.mix:g} start. The last column is written minus start with its 95 % interval.

{_table(result)}

These pairs are like those that it was tuned on. What the model knew before is not measured here: run \
`cliptide evaluate OTHER_PAIRS --model DIR --against {facts.start_model}` on pairs of other kinds.

## Settings

| setting | value |
|---|---|
{rows}

{result.num_trained_weights:,} weights were trained.
"""


def _table(result: TuningResult) -> str:
    lines = ["| | measure | start | tuned | written | difference |", "|---|---|---|---|---|---|"]
    for direction, title in _DIRECTIONS.items():
        start, tuned, written = (
            quality.by_direction[direction] for quality in (result.start, result.tuned, result.mixed)
        )
        if start is not None and tuned is not None and written is not None:
            lines += _rows(title, start, tuned, written)
    return "\n".join(lines)


def _rows(title: str, start: Quality, tuned: Quality, written: Quality) -> list[str]:
    gaps, intervals = difference(written, start, NUM_SAMPLES)
    return [
        f"| {title} | {name} | {start.figures[name]:.3f} | {tuned.figures[name]:.3f} "
        f"| {written.figures[name]:.3f} | {gaps[name]:+.3f} ({_interval(intervals[name])}) |"
        for name in MEASURES
    ]


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"


def card_json_text(facts: CardFacts, settings: FinetuneSettings, result: TuningResult) -> str:
    return json.dumps(card_json(facts, settings, result), indent=2) + "\n"
