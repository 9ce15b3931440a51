"""What the tests of the page do again and again: give a picture, read hits, wait for what the page shows."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from fakes.hash_encoder import draw_picture
from tests.browser.conftest import PATIENCE_MS

pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra named test")
from playwright.sync_api import expect

GIVE_FILES = """([contents, kind]) => {
  const data = new DataTransfer();
  for (const [position, base64] of contents.entries()) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    data.items.add(new File([bytes], `given ${position}.png`, { type: "image/png" }));
  }
  const target = document.querySelector("#upload[open] #upload-zone") ?? document.body;
  const event = { clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true };
  if (kind === "paste") target.dispatchEvent(new ClipboardEvent("paste", event));
  else for (const name of ["dragenter", "dragover", "drop"])
    target.dispatchEvent(new DragEvent(name, event));
}"""


def give_pictures(page: Any, *seeds: int, kind: str = "drop") -> None:
    """Drop or paste pictures: onto the page, or onto the upload dialog if that is open."""
    page.evaluate(GIVE_FILES, [[base64.b64encode(draw_picture(seed)).decode() for seed in seeds], kind])


def pictures(page: Any) -> Any:
    return page.locator("#pictures .hit")


def texts(page: Any) -> Any:
    return page.locator("#texts .hit")


def ids(hits: Any) -> list[str]:
    return [str(one) for one in hits.evaluate_all("items => items.map((item) => item.dataset.id)")]


def wait_until(page: Any, condition: Callable[[], bool]) -> None:
    """Let the browser's driver run until a condition holds in this process."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        page.wait_for_timeout(10)


def wait_for(page: Any, expression: str) -> None:
    """Evaluate an expression in the page until it is true. The CSP forbids playwright's own polling."""
    wait_until(page, lambda: bool(page.evaluate(expression)))


def searchable(page: Any) -> int:
    line = page.locator("#live-text")
    expect(line).to_contain_text("items")
    words = line.text_content()
    return int(re.findall(r"([\d,]+) items", words)[0].replace(",", ""))


def wait_answered(page: Any) -> None:
    """Wait for the first answer of a new page. Until then its line about the answer is empty."""
    expect(page.locator("#answer")).to_contain_text("Answered in")
