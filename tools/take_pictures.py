"""`python -m tools.take_pictures URL`: take README's pictures of the page, of a running demo.

Start the demo with `make demo`, wait until everything is searchable, then run this with its address.
It drives the system's Chromium and writes `docs/images/page-light.webp` and `page-dark.webp`.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
QUERY = "striped red dress"
WIDTH, HEIGHT = 1280, 800
QUALITY = 85
SETTLE_MS = 2_000  # pictures are loaded, and transitions are over


def picture_of(browser: Browser, url: str, scheme: Literal["light", "dark"]) -> Image.Image:
    """Search on the page, and return what it shows."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
    try:
        page.goto(f"{url.rstrip('/')}/?{urlencode({'q': QUERY})}")
        page.wait_for_timeout(SETTLE_MS)
        return Image.open(io.BytesIO(page.screenshot()))
    finally:
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take README's pictures of the page.")
    parser.add_argument("url", help="the address that the demo prints first")
    url = parser.parse_args().url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            picture = picture_of(browser, url, scheme)
            picture.save(IMAGES / f"page-{scheme}.webp", quality=QUALITY, method=6)
        browser.close()


if __name__ == "__main__":
    main()
