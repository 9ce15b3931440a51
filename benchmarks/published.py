"""The last published run of each figure, the table of them in docs/figures.md, and README's few."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.meanings import MEANINGS

PUBLISHED = Path(__file__).parent / "FIGURES.json"
_SHORT = {
    "Time from the acknowledgement of an upload to the first answer with it (model ViT-B-32)": (
        "median {freshness[value][p50_at_25]} s and p99 {freshness[value][p99_at_25]} s at a quarter of the "
        "highest rate; p99 {freshness[value][p99_at_90]} s at 90 %"
    ),
    "A search of 1,000,000 rows, beside an exact scan in fp32": (
        "{search[value][clustered 1000000]} times faster if the data has clusters, "
        "{search[value][spectrum 1000000]} times if it has none"
    ),
    "Share of the true ten best that a search finds (recall@10), for the worst kind of query": (
        "{recall[value][recall]}"
    ),
    "CPU time of a query through HTTP, beside the cheaper of Chroma's server and LanceDB": (
        "{peers[value][of_server]} times as much"
    ),
    "CPU time of indexing unchanged contents again, beside the first time": (
        "{republish[value][texts]} times as much for texts, {republish[value][pictures]} for pictures"
    ),
    "Crashes after which a content was lost, doubled or changed": (
        "{crash[value][step_kills]} of {crash[violations][step_kills][tried]:,} kills at a step of a commit, "
        "{crash[value][random_kills]} of {crash[violations][random_kills][tried]:,} at random times, "
        "{crash[value][power_cuts]} of {crash[violations][power_cuts][tried]:,} simulated power cuts"
    ),
}
"""What README says about some figures. The braces name parts of their published runs."""


def read_published() -> dict[str, dict[str, Any]]:
    return json.loads(PUBLISHED.read_text()) if PUBLISHED.exists() else {}


def keep_published(name: str, entry: dict[str, Any]) -> None:
    published = {**read_published(), name: entry}
    PUBLISHED.write_text(json.dumps(dict(sorted(published.items())), indent=2) + "\n")


def build_table() -> str:
    """Return the figures as a Markdown table that includes missed targets."""
    lines = ["| figure | what it means | measured | target | | date |", "|---|---|---|---|---|---|"]
    for name, entry in sorted(read_published().items()):
        verdict = "holds" if entry["holds"] else "**missed**"
        measured = _as_text(entry["value"])
        cells = (f"`{name}`", MEANINGS[name], measured, entry["target"], verdict, entry["date"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def build_short_table() -> str:
    """Return what README says about the figures, as a Markdown table."""
    published = read_published()
    num_held = sum(entry["holds"] for entry in published.values())
    rows = [(what, measured.format(**published)) for what, measured in _SHORT.items()]
    rows.append(("[Figures](docs/figures.md) whose target holds", f"{num_held} of {len(published)}"))
    return "\n".join(["| | measured |", "|---|---|", *(f"| {what} | {how} |" for what, how in rows)])


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
