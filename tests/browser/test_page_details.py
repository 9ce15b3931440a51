"""What the page keeps behind a switch: facts of a content, numbers, long lists of values, further fields."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from schemas.events import TextContent
from tests.browser.conftest import Site, Watched
from tests.consumer.running import upload

pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra named test")
from playwright.sync_api import expect

from tests.browser.page_steps import ids, pictures, texts

LINK = "https://shop.example/scarf"
LONG_AGO = datetime(2020, 5, 4, tzinfo=timezone.utc)


def publish(site: Site, content_id: str, text: str, **fields: Any) -> None:
    site.world.publish(replace(upload(content_id, TextContent(text)), **fields), partition=1)
    site.wait_until_served(content_id)


def details_of(watched: Watched, site: Site, content_id: str) -> Any:
    watched.page.goto(f"{site.address}/?modality=text&open={content_id}")
    dialog = watched.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_be_visible()
    return dialog


def test_details_tell_the_metadata_in_plain_words_and_lead_to_the_link(watched: Watched, site: Site) -> None:
    metadata = {"main_colour": "teal", "in_stock": True, "price": 9.5, "tags": ("wool", "winter")}
    publish(site, "t-scarf", "a teal scarf", title="Warm scarf", owner_id="ann", metadata=metadata, link=LINK)
    dialog = details_of(watched, site, "t-scarf")
    facts = dict(
        zip(
            dialog.locator("dl").first.locator("dt").all_text_contents(),
            dialog.locator("dl").first.locator("dd").all_text_contents(),
            strict=True,
        )
    )
    expected = {"Main colour": "teal", "In stock": "Yes", "Price": "9.5", "Tags": "wool, winter"}
    assert expected.items() <= facts.items()
    assert {"Owner", "Source", "Uploaded", "Content ID", "Link"} <= facts.keys()
    link = dialog.get_by_role("link", name="Open link")
    expect(link).to_have_attribute("href", LINK)
    expect(link).to_have_attribute("target", "_blank")
    assert {"noreferrer", "noopener"} <= set(link.get_attribute("rel").split())


def test_the_id_is_copied_by_a_button(watched: Watched, site: Site) -> None:
    page = watched.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)
    dialog = details_of(watched, site, "t-red-hat")
    dialog.get_by_role("button", name="Copy ID").click()
    expect(dialog.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "t-red-hat"


def test_the_cosine_stands_behind_a_switch_that_stays_as_it_was_left(watched: Watched, site: Site) -> None:
    page = watched.page
    publish(site, "t-red-hat-too", "a red hat")  # or there might be no other hit to go on to
    page.locator("#text").fill("red hat")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    texts(page).first.locator(".open").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Score (cosine)")).to_be_hidden()
    dialog.get_by_text("Numbers").click()
    expect(dialog.get_by_text("Score (cosine)")).to_be_visible()
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_text("Score (cosine)")).to_be_visible()


def test_times_of_uploads_are_a_filter(watched: Watched, site: Site) -> None:
    page = watched.page
    publish(site, "t-old", "an old text", occurred_at=LONG_AGO)
    page.goto(f"{site.address}/?modality=text")
    page.locator("#filters summary", has_text="Uploaded").click()
    page.get_by_label("Uploaded to").fill((LONG_AGO + timedelta(days=1)).date().isoformat())
    page.get_by_label("Uploaded to").press("Enter")
    expect(texts(page)).to_have_count(1)
    assert ids(texts(page)) == ["t-old"]
    page.reload()
    expect(texts(page)).to_have_count(1)


def test_a_field_of_many_values_is_collapsed_and_its_rarer_values_come_after_a_button(
    watched: Watched, site: Site
) -> None:
    page = watched.page
    for number in range(14):
        publish(site, f"t-shelf-{number}", f"on shelf {number}", metadata={"shelf": f"shelf {number:02d}"})
    page.goto(f"{site.address}/?modality=text")
    summary = page.locator("#filters summary", has_text="Shelf")
    shelves = page.get_by_role("group", name="Shelf")
    expect(summary).to_be_visible()
    expect(shelves).to_be_hidden()
    summary.click()
    boxes = shelves.get_by_role("checkbox")
    expect(boxes.first).to_be_visible()
    shown = boxes.count()
    shelves.get_by_role("button", name=f"Show {14 - shown} more").click()
    expect(boxes).to_have_count(14)


def test_an_upload_asks_for_title_and_tags_and_for_the_rest_behind_more(watched: Watched) -> None:
    page = watched.page
    page.locator("#open-upload").click()
    dialog = page.get_by_role("dialog")
    for name in ("Title", "Tags"):
        expect(dialog.get_by_label(name, exact=True)).to_be_visible()
    for name in ("Owner", "Source", "Link", "Content ID"):
        expect(dialog.get_by_label(name, exact=True)).to_be_hidden()
    dialog.get_by_text("More", exact=True).click()
    dialog.get_by_label("Content ID", exact=True).fill("t-behind-more")
    dialog.get_by_label("Owner", exact=True).fill("dora")
    dialog.get_by_label("Or text").fill("a text with an owner")
    dialog.get_by_role("button", name="Upload").click()
    expect(page.locator("#uploads .is-searchable")).to_have_count(1)
    page.locator("#uploads").get_by_role("button", name="Show it").click()
    expect(page.get_by_role("dialog")).to_contain_text("dora")
    expect(page.get_by_role("dialog")).to_contain_text("t-behind-more")


def test_a_network_that_is_back_is_used_at_once(watched: Watched) -> None:
    page = watched.page
    expect(pictures(page).first).to_be_visible()
    busy = {"error": {"code": "overloaded", "message": "too many requests"}}
    later = {"status": 503, "json": busy, "headers": {"Retry-After": "600"}}  # no pause ends in this test
    page.route("**/v1/search", lambda route: route.fulfill(**later))
    page.locator("#text").fill("red hat")
    expect(page.get_by_role("alert")).to_be_visible()
    page.unroute("**/v1/search")
    page.evaluate("window.dispatchEvent(new Event('online'))")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    watched.errors.clear()  # Chromium logs the answer


def test_whoever_goes_on_before_the_browser_tells_that_details_are_closed_keeps_the_focus(
    watched: Watched,
) -> None:
    page = watched.page
    texts(page).first.locator(".open").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate(
        """() => new Promise((told) => {
            const dialog = document.querySelector("#details");
            dialog.addEventListener("close", () => setTimeout(told));
            dialog.close();
            document.querySelector("#text").focus();
        })"""
    )
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "text"


def test_details_that_are_closed_give_the_focus_to_the_content_that_was_shown_last(watched: Watched) -> None:
    page = watched.page
    texts(page).first.locator(".open").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(texts(page).nth(1).locator(".open")).to_be_focused()
