from html.parser import HTMLParser

import pytest

from cliptide.searching.answers import hits_by_modality
from cliptide.searching.gallery import (
    GalleryItem,
    GallerySection,
    build_gallery,
    picture_from_bytes,
    picture_from_link,
)


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_gallery_shows_pictures_texts_and_scores_by_query() -> None:
    picture = picture_from_bytes(b"png", "image/png")
    page = Page(
        build_gallery(
            "answers",
            [
                GallerySection("red boot", [GalleryItem("boot-1", 0.5, picture)]),
                GallerySection("no such thing", []),
                GallerySection("by picture", [GalleryItem("text-1", 0.25, text="a red boot")], picture),
            ],
        )
    )
    assert [image["src"] for image in page.named("img")] == [picture, picture]
    assert [item.get("style") for item in page.named("div")] == ["width:50%", "width:25%"]
    for words in ("boot-1", "0.500", "nothing found", "a red boot"):
        assert words in page.words


def test_what_came_from_outside_cannot_become_markup() -> None:
    evil = '"><script>alert(1)</script>'
    html = build_gallery(evil, [GallerySection(evil, [GalleryItem(evil, 1.0, evil, evil)], evil)])
    page = Page(html)
    assert page.named("script") == []
    assert "<script" not in html


LINKS = {
    "https": ("https://x/1.jpg", True),
    "http": ("http://x/1.jpg", True),
    "script": ("javascript:alert(1)", False),
    "file": ("file:///etc/passwd", False),
    "half_an_address": ("http://[x/1.jpg", False),
    "none": (None, False),
}


@pytest.mark.parametrize(("link", "is_shown"), LINKS.values(), ids=LINKS.keys())
def test_only_web_addresses_are_shown(link: str | None, is_shown: bool) -> None:
    assert picture_from_link(link) == (link if is_shown else None)


def test_an_answer_is_read_by_modality() -> None:
    hit = {"content_id": "a", "score": 0.5, "link": "https://x/a"}
    text = {"content_id": "b", "score": 0.25, "text": "red"}
    hits = hits_by_modality({"results": {"image": {"hits": [hit]}, "text": {"hits": [text]}}})
    assert hits["image"][0].as_gallery_item() == GalleryItem("a", 0.5, "https://x/a", None)
    assert hits["text"][0].as_gallery_item() == GalleryItem("b", 0.25, None, "red")
