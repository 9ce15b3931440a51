"""Hits as one small HTML page. Texts from events are escaped. The page may load images of some hosts only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from urllib.parse import urlsplit

_STYLE = (
    ":root{color-scheme:light dark;font-family:system-ui,sans-serif}"
    "body{max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "ol{display:grid;grid-template-columns:repeat(auto-fill,minmax(12rem,1fr));gap:.75rem;padding:0}"
    "li{list-style:none;border:1px solid #8884;border-radius:8px;overflow:hidden}"
    "img{display:block;width:100%;aspect-ratio:1;object-fit:cover}"
    "p{margin:.4rem .6rem;font-size:.8rem;overflow-wrap:anywhere}"
)


def gallery_headers(link_hosts: Iterable[str]) -> dict[str, str]:
    """Allow pictures from these hosts only, because whoever uploads a content chooses its link."""
    hosts = " ".join(link_hosts) or "'none'"
    return {
        "Content-Security-Policy": f"default-src 'none'; img-src {hosts}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
    }


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """An image whose link a browser may load."""

    content_id: str
    link: str
    score: float


def is_web_link(link: str | None) -> bool:
    """Whether the link is http(s) with a host. A script, a file or data is not."""
    if link is None:
        return False
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def build_gallery(title: str, images: Iterable[LinkedImage]) -> str:
    """Build the page. The caller has left out all links that are not `is_web_link`."""
    items = "\n".join(_item(image) for image in images)
    found = f"<ol>\n{items}\n</ol>" if items else "<p>nothing found</p>"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{found}\n</body>\n</html>\n"
    )


def _item(image: LinkedImage) -> str:
    link, name = escape(image.link), escape(image.content_id)
    return (
        f'<li><a href="{link}" rel="noreferrer noopener nofollow">'
        f'<img src="{link}" alt="{name}" loading="lazy" referrerpolicy="no-referrer"></a>'
        f"<p>{image.score:.3f} {name}</p></li>"
    )
