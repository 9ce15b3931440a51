"""Which links a browser may be sent to."""

from __future__ import annotations

import pytest

from query_api.compat.html_gallery import build_gallery, gallery_headers, is_web_link

LINKS = {
    "https": ("https://x.test/a", True),
    "http": ("http://x.test", True),
    "upper case": ("HTTPS://x.test/", True),
    "none": (None, False),
    "script": ("javascript:alert(1)", False),
    "script behind spaces": ("  javascript:alert(1)", False),
    "script with a line break": ("java\nscript:alert(1)", False),
    "data": ("data:text/html,x", False),
    "file": ("file:///etc/passwd", False),
    "without host": ("https:///a", False),
    "relative": ("/a", False),
    "without scheme": ("//x.test/a", False),
    "a broken address": ("http://[::1", False),
}


@pytest.mark.parametrize(("link", "is_shown"), LINKS.values(), ids=LINKS)
def test_only_web_links_are_shown(link: str | None, is_shown: bool) -> None:
    assert is_web_link(link) == is_shown


def test_a_gallery_of_nothing_says_so() -> None:
    assert "nothing found" in build_gallery("a", [])


def test_a_gallery_loads_pictures_only_from_hosts_that_are_set() -> None:
    assert "img-src 'none';" in gallery_headers(())["Content-Security-Policy"]
    policy = gallery_headers(("cdn.example", "*.pictures.example"))["Content-Security-Policy"]
    assert "img-src cdn.example *.pictures.example;" in policy
