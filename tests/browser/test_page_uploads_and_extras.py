"""Uploads of many files, filters out of the data, and the small things that make the page pleasant."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from fakes.hash_encoder import draw_picture
from schemas.events import ImageContent, TextContent
from tests.browser.conftest import Site, Watched, open_page
from tests.consumer.running import upload

pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra named test")
from playwright.sync_api import expect

from tests.browser.page_steps import give_pictures, pictures, texts, wait_answered, wait_for, wait_until


def publish(site: Site, content_id: str, content: Any, **fields: Any) -> None:
    site.world.publish(replace(upload(content_id, content), **fields), partition=1)
    site.wait_until_served(content_id)


def test_many_files_are_dropped_uploaded_and_shown_and_one_is_deleted(watched: Watched) -> None:
    page = watched.page
    page.locator("#open-upload").click()
    page.locator("#upload-title-text").fill("Three noises")
    page.locator("#upload-tags").fill("noise, test")
    give_pictures(page, 701, 702, 703)
    expect(page.locator("#uploads .is-searchable")).to_have_count(3)
    page.locator("#uploads").get_by_role("button", name="Show it").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Three noises")
    expect(dialog).to_contain_text("noise, test")
    gone = page.evaluate("new URL(location.href).searchParams.get('open')")
    dialog.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete for good?").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(f'[data-id="{gone}"]')).to_have_count(0)


def test_an_upload_that_failed_is_tried_again_by_its_button(watched: Watched) -> None:
    page = watched.page
    page.route("**/v1/contents?*", lambda route: route.abort())
    page.locator("#open-upload").click()
    page.locator("#upload-text").fill("a late text")
    page.locator("#upload-form").get_by_role("button", name="Upload").click()
    line = page.locator("#uploads li")
    expect(line.locator(".said")).to_have_text("Can't reach the service.")
    page.unroute("**/v1/contents?*")
    line.get_by_role("button", name="Try again").click()
    expect(line).to_have_class("is-searchable")
    watched.errors.clear()


def test_an_upload_of_nothing_says_what_is_missing(watched: Watched) -> None:
    page = watched.page
    page.locator("#open-upload").click()
    page.get_by_role("dialog").get_by_role("button", name="Upload").click()
    expect(page.locator("#upload-chosen")).to_contain_text("choose pictures, or write a text below")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.locator("#open-upload").click()
    expect(page.locator("#upload-chosen")).to_have_text("Drop pictures here, or choose them")


def test_where_uploads_are_off_nothing_can_be_deleted(watched: Watched) -> None:
    page = watched.page
    page.evaluate("document.querySelector('meta[name=cliptide-can-publish]').content = 'false'")
    pictures(page).first.locator(".open").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Find similar")).to_be_visible()
    expect(page.get_by_role("dialog").get_by_role("button", name="Delete")).to_have_count(0)


def test_filters_come_from_the_data_and_count_under_each_other(watched: Watched, site: Site) -> None:
    page = watched.page
    for number, colour in enumerate(("red", "red", "blue")):
        metadata = {"main_colour": colour, "price": 10.0 * number + 5, "in_stock": number == 0}
        publish(site, f"t-facet-{number}", TextContent(f"a facet {number}"), metadata=metadata)
    page.goto(f"{site.address}/?modality=text")
    colours = page.get_by_role("group", name="Main colour")
    expect(colours.locator("label", has_text="red").locator("small")).to_have_text("2")
    stock = page.get_by_role("group", name="In stock")
    stock.locator("label", has_text="Yes").locator("input").check()
    expect(texts(page)).to_have_count(1)
    expect(colours.locator("label", has_text="red").locator("small")).to_have_text("1")
    expect(stock.locator("label", has_text="No").locator("small")).to_have_text("2")
    page.get_by_role("button", name="Remove all filters").click()
    page.goto(f"{site.address}/?modality=text")
    page.get_by_label("Price from").fill("10")
    page.keyboard.press("Enter")
    expect(texts(page)).to_have_count(2)
    assert "from.metadata.price=10" in page.url
    page.reload()
    expect(page.get_by_label("Price from")).to_have_value("10")
    expect(texts(page)).to_have_count(2)


def test_a_part_of_a_picture_is_searched_with_and_the_whole_again(watched: Watched) -> None:
    page, asked = watched.page, []
    page.on("request", lambda request: asked.append(request) if request.url.endswith("/v1/search") else None)
    give_pictures(page, 33)
    expect(pictures(page).first).to_have_attribute("data-id", "p-033")
    page.locator("#crop-picture").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.get_by_role("button", name="Search this part").click()
    wait_until(page, lambda: len(asked) == 2)
    assert asked[0].post_data_json["image"] != asked[1].post_data_json["image"]
    page.locator("#crop-picture").click()
    page.get_by_role("button", name="Whole picture").click()
    expect(pictures(page).first).to_have_attribute("data-id", "p-033")
    wait_until(page, lambda: len(asked) == 3)
    assert asked[2].post_data_json["image"] == asked[0].post_data_json["image"]


def test_pictures_that_look_the_same_are_shown_once(watched: Watched, site: Site) -> None:
    page = watched.page
    for number in range(3):
        publish(site, f"p-same-{number}", ImageContent(draw_picture(808)), owner_id="twins")
    page.goto(f"{site.address}/?owner_id=twins")
    expect(page.locator("#pictures .hit:visible")).to_have_count(1)
    more = page.get_by_role("button", name="Show 2 more that look the same")
    expect(more).to_have_text("+2")
    more.click()
    expect(page.locator("#pictures .hit:visible")).to_have_count(3)
    page.goto(f"{site.address}/?owner_id=ann")  # pictures that differ all stay
    expect(pictures(page).nth(20)).to_be_visible()
    wait_for(page, "document.querySelector('#pictures img').naturalWidth > 0")
    expect(page.locator("#pictures .copies:visible")).to_have_count(0)


def test_an_empty_page_offers_examples_and_the_last_searches(watched: Watched) -> None:
    page = watched.page
    examples = page.get_by_role("group", name="Example searches").get_by_role("button")
    expect(examples.first).to_be_visible()
    chosen = examples.first.text_content()
    examples.first.click()
    expect(page.locator("#text")).to_have_value(chosen)
    wait_answered(page)
    expect(page.locator("#start")).to_be_hidden()
    page.locator("#clear").click()
    recent = page.get_by_role("group", name="Recent searches")
    expect(recent.get_by_role("button").first).to_have_text(chosen)
    recent.get_by_role("button", name="Forget").click()
    expect(recent).to_have_count(0)


def test_an_example_is_offered_only_if_it_finds_something(watched: Watched, site: Site) -> None:
    page = watched.page
    unfindable = "a note of nobody"
    publish(site, "t-unfindable", TextContent(unfindable))

    def hide_its_hits(route: Any) -> None:
        answer = route.fetch().json()
        for query, found in zip(route.request.post_data_json["queries"], answer["answers"], strict=True):
            if query["text"] == unfindable:
                found["results"] = {"image": {"hits": []}, "text": {"hits": []}}
        route.fulfill(json=answer)

    page.route("**/v1/search/batch", hide_its_hits)
    page.reload()
    examples = page.get_by_role("group", name="Example searches").get_by_role("button")
    expect(examples.first).to_be_visible()
    shown = examples.all_text_contents()
    assert unfindable not in shown
    publish(site, "t-later", TextContent("a later note"))
    expect(page.locator("#texts .hit[data-id=t-later]")).to_be_attached()
    assert examples.all_text_contents()[: len(shown)] == shown  # a click meets what a person has seen


def test_a_filter_on_a_field_that_nothing_has_says_so(watched: Watched, site: Site) -> None:
    page = watched.page
    for query in ("?metadata.colr=red", "?q=hat&metadata.colr=red"):
        page.goto(f"{site.address}/{query}")
        expect(page.locator("#nothing")).to_contain_text("nothing has “colr”. Remove this filter.")
    page.goto(f"{site.address}/?q=hat&owner_id=nobody")
    expect(page.locator("#nothing")).to_contain_text("Try fewer filters or other words.")
    page.locator("#nothing").get_by_role("button", name="Remove all filters").click()
    expect(texts(page).first).to_be_visible()


def test_on_a_phone_a_long_press_offers_more_and_less(chromium: Any, site: Site) -> None:
    viewport = {"width": 390, "height": 844}
    with open_page(chromium, site.address, viewport=viewport, has_touch=True, is_mobile=True) as watched:
        page = watched.page
        page.goto(f"{site.address}/?modality=image")
        expect(pictures(page).first).to_be_visible()
        expect(pictures(page).first.locator(".like")).to_be_hidden()
        finger = {"pointerType": "touch", "bubbles": True}
        pictures(page).first.locator(".open").dispatch_event("pointerdown", finger)
        page.get_by_role("dialog").get_by_role("button", name="More like this").click()
        expect(page.locator(".chip.more")).to_have_count(1)
        page.get_by_role("button", name=re.compile(r"^Filters \(1\)")).click()
        page.get_by_role("button", name="Done").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        watched.check()


def test_on_paper_there_are_results_and_no_controls(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?q=red")
    expect(texts(page).first).to_be_visible()
    page.emulate_media(media="print")
    expect(page.locator("#open-upload")).to_be_hidden()
    expect(page.locator("#filters")).to_be_hidden()
    expect(texts(page).first).to_be_visible()
    page.emulate_media(media="screen")


def test_a_second_visit_loads_the_page_itself_alone(watched: Watched, site: Site) -> None:
    page = watched.page
    expect(pictures(page).first).to_be_visible()
    page.goto(f"{site.address}/?q=red")
    wait_answered(page)
    sizes = page.evaluate(
        """performance.getEntriesByType("resource").filter(({ name }) => name.includes("/page/"))
          .map(({ transferSize }) => transferSize)"""
    )
    assert len(sizes) > 20
    assert sum(sizes) == 0  # nothing came over the network
