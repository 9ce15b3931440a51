"""Shows search answers as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from query_api.compat.html_gallery import is_web_link

STYLE = """
:root {
  color-scheme: light dark; --ground: #fafaf8; --surface: #fff; --ink: #1b1c1a; --quiet: #696b66;
  --line: #e3e3dd; --accent: #0f766e;
  font: 400 15px/1.5 Inter, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #131514; --surface: #1c1f1e; --ink: #eceeec; --quiet: #9aa09d;
    --line: #2f3433; --accent: #4fd1c0;
  }
}
body { max-width: 76rem; margin: 2.5rem auto; padding: 0 1.25rem }
body { background: var(--ground); color: var(--ink) }
h1 { margin: 0; font-size: 1.5rem; letter-spacing: -.02em; overflow-wrap: anywhere }
h2 { display: flex; align-items: center; gap: .75rem; margin: 2.25rem 0 .75rem; font-size: 1rem }
h2 img { height: 64px; border-radius: 10px }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.6rem, 1fr)); gap: 1rem .9rem }
ol { margin: 0; padding: 0; list-style: none }
li { min-width: 0; font-size: .8rem; color: var(--quiet) }
li img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 12px }
li p { margin: .3rem 0 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
li .text { margin: 0; min-height: 5.5rem; padding: .75rem .9rem; color: var(--ink); font-size: .93rem }
li .text { border: 1px solid var(--line); border-radius: 12px; background: var(--surface) }
.score { height: 3px; margin-top: .4rem; border-radius: 2px; background: var(--accent) }
.none { color: var(--quiet) }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem }
"""
# The page runs no scripts and fetches nothing but pictures.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: https: http:"


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One hit, with its picture (an address for `img`), its text, or neither."""

    content_id: str
    score: float
    picture: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class GallerySection:
    """One query and its hits, best first. `picture` is the picture that was searched by, if any."""

    title: str
    items: Sequence[GalleryItem]
    picture: str | None = None


def picture_from_bytes(data: bytes, media_type: str) -> str:
    """Return the picture as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def picture_from_link(link: str | None) -> str | None:
    """Return the link if a browser may show it, which holds for http and https only."""
    return link if is_web_link(link) else None


def build_gallery(title: str, sections: Sequence[GallerySection]) -> str:
    """Build the page. Everything from outside is escaped."""
    return _page(title, "\n".join(_section(section) for section in sections))


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def build_comparison(title: str, rows: Sequence[tuple[GallerySection, GallerySection]]) -> str:
    """Build a page that shows two answers to each query side by side."""
    pairs = [f'<div class="pair">{_section(one)}{_section(other)}</div>' for one, other in rows]
    return _page(title, "\n".join(pairs))


def _section(section: GallerySection) -> str:
    picture = _img(section.picture, "the query") if section.picture else ""
    items = "\n".join(_item(item) for item in section.items)
    listing = f"<ol>\n{items}\n</ol>" if items else '<p class="none">nothing found</p>'
    return f"<section>\n<h2>{picture}{escape(section.title)}</h2>\n{listing}\n</section>"


def _item(item: GalleryItem) -> str:
    width = round(100 * min(max(item.score, 0.0), 1.0))
    picture = _img(item.picture, item.content_id) if item.picture else ""
    text = f'<p class="text">{escape(item.text)}</p>' if item.text else ""
    return (
        f'<li>{picture}{text}<div class="score" style="width:{width}%"></div>'
        f"<p>{item.score:.3f} · {escape(item.content_id)}</p></li>"
    )


def _img(source: str, description: str) -> str:
    return f'<img src="{escape(source)}" alt="{escape(description)}" loading="lazy">'
