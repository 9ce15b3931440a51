"""The page by axe, which knows the rules of WCAG: at three widths, light and dark, in each of its states."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from tests.browser.conftest import Site, open_page

pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra named test")
pytest.importorskip("axe_playwright_python", reason="no axe: install the extra named test")
from playwright.sync_api import expect

from tests.browser.page_steps import give_pictures, pictures, texts, wait_answered

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
RUN_AXE = "async () => (await axe.run()).violations"
QUERIES = {
    "the newest": "",
    "a search": "?q=red+dress",
    "nothing good": "?q=zzz",
    "nothing": "?q=a&owner_id=nobody",
}


def open_details(page: Any) -> None:
    page.locator(".hit .open").first.click()
    page.locator("#details summary").click()


def open_upload(page: Any) -> None:
    page.locator("#open-upload").click()
    page.locator("#upload summary").click()


def open_filters(page: Any) -> None:
    page.locator("#toggle-filters").click()


def open_crop(page: Any) -> None:
    give_pictures(page, 4)
    page.locator("#crop-picture").click()


def open_menu(page: Any) -> None:
    page.locator(".hit .open").first.dispatch_event("pointerdown", {"pointerType": "touch", "bubbles": True})
    expect(page.locator("#menu")).to_be_visible()


def choose_examples(page: Any) -> None:
    for name in ("more", "less"):
        page.locator(f".hit .{name}").first.dispatch_event("click")
        expect(page.locator(f".chip.{name}")).to_be_visible()


def lose_the_network(page: Any) -> None:
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("You are offline")


STATES: dict[str, Callable[[Any], None]] = {
    "details": open_details,
    "upload": open_upload,
    "part of a picture": open_crop,
    "long press": open_menu,
    "examples": choose_examples,
    "no network": lose_the_network,
}


def violations(page: Any) -> list[str]:
    """Run axe and return one line for each element that breaks a rule."""
    page.evaluate(AXE)
    found = page.evaluate(RUN_AXE)
    return [f"{rule['id']}: {node['html'][:160]}" for rule in found for node in rule["nodes"]]


def wait_settled(page: Any, query: str) -> None:
    """Wait for the answer and its filters, and for the end of movements, in which colours are faint."""
    if query.startswith("?q="):
        wait_answered(page)
    else:
        expect(pictures(page).first).to_be_visible()
    expect(page.locator("#filter-list label").first).to_be_attached()
    page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (1920, 1080), (390, 844)], ids=["1280", "1920", "390"])
def test_axe_finds_no_violation(chromium: Any, site: Site, size: tuple[int, int], scheme: str) -> None:
    viewport, is_phone = {"width": size[0], "height": size[1]}, size[0] < 500
    look = {"viewport": viewport, "color_scheme": scheme, "has_touch": is_phone, "reduced_motion": "reduce"}
    found: dict[str, list[str]] = {}
    with open_page(chromium, site.address, **look) as watched:
        page = watched.page
        for name, query in QUERIES.items():
            page.goto(f"{site.address}/{query}")
            wait_settled(page, query)
            found[name] = violations(page)
        for name, open_state in (STATES | ({"filters": open_filters} if is_phone else {})).items():
            page.goto(f"{site.address}/?q=red")
            wait_settled(page, "?q=red")
            open_state(page)
            found[name] = violations(page)
            page.context.set_offline(False)
        assert {name: some for name, some in found.items() if some} == {}


def test_a_phone_has_targets_of_44_pixels(chromium: Any, site: Site) -> None:
    viewport = {"width": 390, "height": 844}
    with open_page(chromium, site.address, viewport=viewport, has_touch=True, is_mobile=True) as watched:
        page = watched.page
        page.goto(f"{site.address}/?q=red")
        wait_settled(page, "?q=red")
        expect(page.locator("#text")).to_have_attribute("placeholder", "Search or take a photo")
        open_filters(page)
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, summary, #filter-list label, .top a, #text")]
              .filter((one) => one.checkVisibility())
              .filter((one) => one.getBoundingClientRect().height < 43.5)
              .map((one) => one.outerHTML.slice(0, 100))"""
        )
        assert small == []


def test_axe_finds_no_violation_where_the_service_asks_for_a_key(chromium: Any, site: Site) -> None:
    with open_page(chromium, site.guarded_address, reduced_motion="reduce") as watched:
        watched.page.goto(site.guarded_address)
        expect(watched.page.get_by_role("dialog", name="API key")).to_be_visible()
        assert violations(watched.page) == []


def test_the_page_has_a_heading_and_landmarks(chromium: Any, site: Site) -> None:
    with open_page(chromium, site.address) as watched:
        page = watched.page
        page.goto(f"{site.address}/?q=red")
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        for landmark in ("banner", "search", "main"):
            expect(page.get_by_role(landmark)).to_have_count(1)
        expect(texts(page).first).to_be_visible()
