"""`cliptide compare`: what two indexes answer to the same queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from clip_index.content import MODALITIES
from clip_index.storage.index_roots import IndexRoot
from clip_index.views.snapshot import Hit
from cliptide.pairs.reading import PairRequest, pair_options
from cliptide.reindexing.comparing import ComparisonRequest, ComparisonResult, compare, model_option
from cliptide.reindexing.comparison import ComparedAnswer, ComparedIndex
from cliptide.reindexing.disk_errors import disk_errors_named
from cliptide.reindexing.live_queries import LiveQueries, live_options
from cliptide.searching.gallery import (
    GalleryItem,
    GallerySection,
    build_comparison,
    picture_from_bytes,
    picture_from_link,
)
from cliptide.terminal.options import checked_index_id, option, root_option
from cliptide.terminal.paths import NewFile, PathType
from cliptide.terminal.summary import json_option


@click.command("compare", short_help="Compare what two indexes answer.")
@click.argument("first_id", metavar="FIRST", callback=checked_index_id)
@click.argument("second_id", metavar="SECOND", callback=checked_index_id)
@root_option
@pair_options
@option(
    "--queries",
    "queries_file",
    type=PathType(dir_okay=False, path_type=Path),
    help="A file of texts to search for, one a line.",
)
@live_options
@option("--sample", type=click.IntRange(0), default=200, help="Contents of the index to search by; 0: none.")
@option("-k", "k", type=click.IntRange(1, 100), default=10, help="How many hits of each answer are compared.")
@option(
    "--gallery",
    type=NewFile(),
    help="Write the answers that differ most to this file, side by side, as an HTML page.",
)
@option("--num-shown", type=click.IntRange(1), default=50, help="How many answers the page shows.")
@model_option
@json_option("compare")
def compare_command(
    first_id: str,
    second_id: str,
    index_root: IndexRoot,
    pairs: PairRequest,
    gallery: Path | None,
    num_shown: int,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compare what the indexes FIRST and SECOND answer to the same queries.

    overlap@k is the share of the first k hits that both answer, of texts in --queries, of the captions of
    PAIRS, of live queries that a query service has kept (--live), and of contents that are sampled from FIRST
    and searched by their own embeddings. It says how much
    changes, not what is better. PAIRS tell that: they are measured as `cliptide evaluate` does, in both
    indexes, with the difference and its interval.
    """
    request = ComparisonRequest(
        index_root,
        first_id,
        second_id,
        model_of=flags["model_of"],
        k=flags["k"],
        queries_file=flags["queries_file"],
        pairs=pairs,
        live=LiveQueries(flags["live_urls"], flags["admin_key"]),
        num_sampled=flags["sample"],
    )
    with disk_errors_named():
        result = compare(request)
        if gallery is not None:
            gallery.write_text(build_page(result, num_shown), encoding="utf-8")
    _report(result, as_json=as_json)


def _report(result: ComparisonResult, *, as_json: bool) -> None:
    """Print tables for a person, and JSON for a program; the tables go to standard error then."""
    console = Console()
    is_for_a_person = console.is_terminal and not as_json
    shown = console if is_for_a_person else Console(stderr=True)
    shown.print(_table(result))
    if result.evaluation is not None:
        result.evaluation.print(shown)
    if not is_for_a_person:
        click.echo(json.dumps(result.as_json()))


def _table(result: ComparisonResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("queries", "hits", f"overlap@{result.comparison.k}", "number"):
        table.add_column(column)
    for kind, by_modality in result.comparison.as_json()["overlaps"].items():
        for modality in MODALITIES:
            if modality in by_modality:
                found = by_modality[modality]
                table.add_row(kind, modality, f"{found['mean']:.3f}", f"{found['num_queries']:,}")
    return table


def build_page(result: ComparisonResult, num_shown: int) -> str:
    """Build the page of the answers that differ most, the first index on the left."""
    first, second = result.indexes
    rows = [
        (_section(answer, first, answer.first), _section(answer, second, answer.second))
        for answer in result.comparison.least_alike(num_shown)
    ]
    return build_comparison(f"{first.index_id} and {second.index_id}", rows)


def _section(answer: ComparedAnswer, index: ComparedIndex, hits: Sequence[Hit]) -> GallerySection:
    title = f"{answer.query.title} — {index.index_id} ({answer.overlap:.0%} in common)"
    return GallerySection(title, [_item(index, hit) for hit in hits])


def _item(index: ComparedIndex, hit: Hit) -> GalleryItem:
    content, thumbnail = index.searcher.read(hit.location), index.searcher.thumbnail(hit.location)
    picture = picture_from_bytes(thumbnail, "image/webp") if thumbnail else None
    if picture is None and hit.modality == "image":
        picture = picture_from_link(content.facts.link)
    return GalleryItem(hit.content_id, hit.score, picture, content.facts.text)
