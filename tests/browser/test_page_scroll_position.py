"""Back, forward, reload and closed details return to where a person was in the results."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Site, Watched

pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra named test")
from playwright.sync_api import expect

from tests.browser.page_steps import pictures, texts, wait_answered, wait_for, wait_until

DEEP = "p-020"  # the newest come first: behind the pages that an answer holds
TOP_OF = "(id) => document.querySelector(`.hit[data-id=${id}]`)?.getBoundingClientRect().top ?? null"
SHOW = "(id) => document.querySelector(`.hit[data-id=${id}]`).scrollIntoView({block: 'center'})"
SETTLED = "history.state?.scroll?.id != null"


def go_deep(page: Any, content_id: str = DEEP) -> float:
    """Scroll until a hit is loaded, bring it onto the screen, and return its distance from the top."""
    wait_until(page, lambda: step_down(page, content_id))
    page.evaluate(SHOW, content_id)
    wait_for(page, SETTLED)
    return float(page.evaluate(TOP_OF, content_id))


def step_down(page: Any, content_id: str) -> bool:
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    return page.evaluate(TOP_OF, content_id) is not None


def expect_top(page: Any, top: float, content_id: str = DEEP) -> None:
    def is_there() -> bool:
        found = page.evaluate(TOP_OF, content_id)
        return found is not None and abs(found - top) < 3

    wait_until(page, is_there)


def test_back_forward_and_reload_return_to_the_hit_that_was_on_screen(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?modality=image")
    top = go_deep(page)
    page.keyboard.press("/")
    page.keyboard.type("red hat")
    page.keyboard.press("Enter")
    wait_answered(page)
    assert page.evaluate("window.scrollY") == 0
    page.go_back()
    expect_top(page, top)
    page.reload()
    expect_top(page, top)
    page.go_forward()
    expect(page.locator("#text")).to_have_value("red hat")
    wait_for(page, "window.scrollY === 0")


def test_closing_details_leaves_the_results_where_they_were(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?modality=image")
    top = go_deep(page)
    for close in (lambda: page.keyboard.press("Escape"), page.go_back):
        page.locator(f".hit[data-id={DEEP}] .open").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        close()
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect_top(page, top)


def test_hits_behind_the_divider_are_shown_again_after_a_reload(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?q=zzz&modality=image")
    page.locator("#pictures .divider button").click()
    expect(page.locator("#pictures .rest .hit").first).to_be_visible()
    page.evaluate("document.querySelector('#pictures .rest .hit:nth-child(20)').scrollIntoView()")
    wait_for(page, SETTLED)
    hit = page.evaluate("document.querySelector('#pictures .rest .hit:nth-child(20)').dataset.id")
    top = float(page.evaluate(TOP_OF, hit))
    page.reload()
    expect_top(page, top, hit)


def test_a_new_question_begins_at_the_top(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?modality=image")
    go_deep(page)
    page.get_by_role("radio", name="Everything").check()
    expect(texts(page).first).to_be_visible()
    assert page.evaluate("window.scrollY") == 0
    expect(pictures(page).first).to_be_in_viewport()
