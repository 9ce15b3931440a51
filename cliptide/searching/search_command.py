"""`cliptide search`: search from a terminal."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from cliptide.searching.answers import AnsweredHit, build_table, hits_by_modality
from cliptide.searching.gallery import GallerySection, build_gallery
from cliptide.searching.query_client import QueryClient
from cliptide.terminal.options import option, query_options
from cliptide.terminal.paths import NewFile, PathType
from cliptide.terminal.waiting import waiting_told

SECTION_TITLES = {"image": "Pictures", "text": "Texts"}  # in the order of the page


@dataclass(frozen=True, slots=True)
class Question:
    """One search: by a text or a picture, for how many contents of which modality, with which fields."""

    text: str | None
    image: bytes | None
    k: int
    modality: str | None
    include: tuple[str, ...] = ("text", "metadata")

    def as_request(self) -> dict[str, Any]:
        request: dict[str, Any] = {"k": self.k, "include": list(self.include)}
        if self.text is not None:
            request["text"] = self.text
        if self.image is not None:
            request["image"] = base64.b64encode(self.image).decode()
        if self.modality is not None:
            request["modality"] = self.modality
        return request


def _picture(path: Path | None) -> bytes | None:
    picture = None if path is None else path.read_bytes()
    if picture == b"":
        raise click.BadParameter(f"{path} is empty", param_hint="--image")
    return picture


@click.command("search")
@click.argument("text", required=False)
@option("--image", type=PathType(exists=True, dir_okay=False, path_type=Path), help="Search by this picture.")
@option("--k", "-k", type=click.IntRange(1), default=10, help="How many contents of each modality to show.")
@option("--modality", type=click.Choice(["image", "text"]), help="Search only contents of this modality.")
@option(
    "--json",
    "as_json",
    envvar="CLIPTIDE_SEARCH_JSON",
    is_flag=True,
    help="Print the service's JSON answer unchanged.",
)
@option(
    "--html",
    type=NewFile(),
    help="Also write the answer to this file, as an HTML page.",
)
@query_options
def search_command(
    text: str | None, image: Path | None, k: int, modality: str | None, query_url: str, **flags: Any
) -> None:
    """Search by TEXT or by a picture and print the best contents of each modality."""
    if (text is None) == (image is None):
        raise click.UsageError("give either a text or --image FILE")
    question = Question(text, _picture(image), k, modality)
    if flags["html"] is not None:
        question = replace(question, include=(*question.include, "thumbnail"))
    with waiting_told(f"the query service at {query_url}"):
        answer = QueryClient(query_url, flags["api_key"]).search(question.as_request())
    hits = hits_by_modality(answer)
    if flags["html"] is not None:
        title = text if text is not None else str(image)
        flags["html"].write_text(_gallery(title, hits), encoding="utf-8")
    if flags["as_json"]:
        click.echo(json.dumps(answer))
    else:
        print_answer(Console(), hits, answer)


def print_answer(
    console: Console, hits: Mapping[str, Sequence[AnsweredHit]], answer: Mapping[str, Any]
) -> None:
    """Print a table for each modality, and the offsets that the answer covers."""
    for modality, found in hits.items():
        console.print(build_table(modality, found) if found else Text(f"{modality}: nothing found"))
    covered = ", ".join(
        f"{shard} up to {state['next_offset']}" for shard, state in sorted(answer["snapshot"].items())
    )
    console.print(Text(f"covers {covered}" if covered else "covers no shard yet", style="dim"))


def _gallery(title: str, hits: Mapping[str, Sequence[AnsweredHit]]) -> str:
    sections = [
        GallerySection(SECTION_TITLES[modality], [hit.as_gallery_item() for hit in hits[modality]])
        for modality in SECTION_TITLES
        if modality in hits
    ]
    return build_gallery(title, sections)
