"""`python -m tools.take_pictures URL`: take the pictures of the page in `docs/images`, of a running demo.

Start the demo with `make demo`, wait until everything is searchable, then run this with its address.
It drives the system's Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
QUERY = "striped red dress"
QUERY_OF_NOTHING = "quantum tax law"
QUALITY = 85
SETTLE_MS = 2_000  # pictures are loaded, and transitions are over


def open_details(page: Page) -> None:
    page.locator("#pictures .open").first.click()


@dataclass(frozen=True, slots=True)
class View:
    """What a picture shows: a query on a screen of this size, and what a person does then."""

    query: str = QUERY
    scheme: Literal["light", "dark"] = "light"
    width: int = 1280
    height: int = 800
    then: Callable[[Page], None] | None = None

    @property
    def is_phone(self) -> bool:
        return self.width < 500


VIEWS: Mapping[str, View] = {
    "page-light": View(),
    "page-dark": View(scheme="dark"),
    "phone": View(width=390, height=844),
    "details": View(then=open_details),
    "nothing-found": View(query=QUERY_OF_NOTHING),
}


def picture_of(browser: Browser, url: str, view: View) -> Image.Image:
    """Search on the page, and return what it shows."""
    page = browser.new_page(
        viewport={"width": view.width, "height": view.height},
        color_scheme=view.scheme,
        is_mobile=view.is_phone,
        has_touch=view.is_phone,
        device_scale_factor=2 if view.is_phone else 1,
    )
    try:
        page.goto(f"{url.rstrip('/')}/?{urlencode({'q': view.query})}")
        page.wait_for_timeout(SETTLE_MS)
        if view.then is not None:
            view.then(page)
            page.wait_for_timeout(SETTLE_MS)
        return Image.open(io.BytesIO(page.screenshot()))
    finally:
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the page in docs/images.")
    parser.add_argument("url", help="the address that the demo prints first")
    url = parser.parse_args().url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name, view in VIEWS.items():
            picture_of(browser, url, view).save(IMAGES / f"{name}.webp", quality=QUALITY, method=6)
        browser.close()


if __name__ == "__main__":
    main()
