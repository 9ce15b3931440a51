"""The query service's answers, as values that the command line prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cliptide.searching.gallery import GalleryItem, picture_from_link
from cliptide.terminal.plain_text import plain


@dataclass(frozen=True, slots=True)
class AnsweredHit:
    """One hit of an answer."""

    modality: str
    content_id: str
    score: float
    text: str | None
    link: str | None
    thumbnail: str | None  # a WebP file in base64
    title: str | None = None

    def as_gallery_item(self) -> GalleryItem:
        embedded = f"data:image/webp;base64,{self.thumbnail}" if self.thumbnail else None
        return GalleryItem(self.content_id, self.score, embedded or picture_from_link(self.link), self.text)

    @property
    def shown(self) -> str:
        """What a person knows the content by, beside its id: its text, or its title and link. One line."""
        parts = (self.text,) if self.text else (self.title, self.link)
        return " · ".join(" ".join(part.split()) for part in parts if part)


def hits_by_modality(answer: Mapping[str, Any]) -> dict[str, list[AnsweredHit]]:
    """Read `{"results": {modality: {"hits": […]}}}`. The best hit comes first."""
    return {
        modality: [_hit(modality, hit) for hit in result["hits"]]
        for modality, result in answer["results"].items()
    }


def _hit(modality: str, hit: Mapping[str, Any]) -> AnsweredHit:
    return AnsweredHit(
        modality=modality,
        content_id=hit["content_id"],
        score=float(hit["score"]),
        text=hit.get("text"),
        link=hit.get("link"),
        thumbnail=hit.get("thumbnail"),
        title=hit.get("title"),
    )


def build_table(title: str, hits: Sequence[AnsweredHit]) -> Table:
    """Build a table of hits for a terminal. The text, or title and link, stands below the id: both fit."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        table.add_row(str(rank), f"{hit.score:.3f}", Group(*_lines(hit)))
    return table


def _lines(hit: AnsweredHit) -> Iterator[Text]:
    """The hit's id, whole, and one line of what it shows, cut off at the edge of the terminal."""
    yield plain(hit.content_id)
    if hit.shown:
        line = plain(hit.shown)
        line.no_wrap, line.overflow, line.style = True, "ellipsis", "dim"
        yield line
