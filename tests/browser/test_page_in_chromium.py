"""What a person does on the page, in a real browser, while the index grows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from fakes.hash_encoder import draw_picture
from schemas.events import TextContent
from tests.browser.conftest import (
    API_KEY,
    NUM_CROWDED,
    NUM_PICTURES,
    PATIENCE_MS,
    Site,
    Watched,
    open_page,
)
from tests.consumer.running import upload

pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra named test")
from playwright.sync_api import expect

from tests.browser.page_steps import (
    give_pictures,
    ids,
    pictures,
    searchable,
    texts,
    wait_answered,
    wait_for,
    wait_until,
)


def test_without_a_question_it_shows_what_is_newest_with_pictures(watched: Watched) -> None:
    page = watched.page
    expect(page.locator("#pictures-title")).to_have_text("Newest pictures")
    expect(pictures(page).first.locator("img")).to_be_visible()
    wait_for(page, "document.querySelector('#pictures img').naturalWidth > 0")
    assert page.evaluate("document.querySelector('#pictures img').naturalWidth") == 32


def test_typing_finds_texts_and_the_address_keeps_the_search(watched: Watched, site: Site) -> None:
    page = watched.page
    page.locator("#text").press_sequentially("red dress", delay=20)
    expect(texts(page).first).to_have_attribute("data-id", "t-red-dress")
    expect(page.locator("#answer")).to_contain_text("Answered in")
    expect(page).to_have_url(f"{site.address}/?q=red+dress")
    page.reload()
    expect(page.locator("#text")).to_have_value("red dress")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-dress")


@contextmanager
def late_answer(page: Any) -> Iterator[Any]:
    """Search for a coat, hold its answer back, then search for a hat. Yields the coat's request.

    The coat's answer arrives at the end of the block.
    """
    held: list[tuple[Any, Any]] = []

    def hold_the_coat(route: Any) -> None:
        if "coat" in route.request.post_data:
            held.append((route, route.fetch()))
        else:
            route.continue_()

    page.route("**/v1/search", hold_the_coat)
    page.locator("#text").fill("blue coat")
    wait_until(page, lambda: bool(held))
    page.locator("#text").fill("red hat")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    [(route, answer)] = held
    yield route.request
    route.fulfill(response=answer)


def test_a_search_is_given_up_for_a_newer_one(watched: Watched) -> None:
    page, failed = watched.page, []
    page.on("requestfailed", lambda request: failed.append(request))  # playwright takes no built-in method
    expect(pictures(page).first).to_be_visible()
    with late_answer(page) as request:
        wait_until(page, lambda: request in failed)
        assert request.failure == "net::ERR_ABORTED"
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")


ANSWERS_ARRIVE = """
AbortController.prototype.abort = () => {};
window.firstTexts = [];
const read = Response.prototype.json;
Response.prototype.json = async function () {
  const answer = await read.call(this);
  window.firstTexts.push(answer.results?.text?.hits[0]?.content_id);
  return answer;
};
"""


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(watched: Watched) -> None:
    """A cancelled request may have been answered already, so this test makes cancelling have no effect."""
    page = watched.page
    page.add_init_script(ANSWERS_ARRIVE)
    page.reload()
    expect(pictures(page).first).to_be_visible()
    with late_answer(page):
        assert "t-blue-coat" not in page.evaluate("window.firstTexts")
    wait_for(page, "window.firstTexts.includes('t-blue-coat')")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_finds_itself(watched: Watched, kind: str) -> None:
    page = watched.page
    give_pictures(page, 17, kind=kind)
    expect(pictures(page).first).to_have_attribute("data-id", "p-017")
    expect(pictures(page).first.locator(".level")).to_have_text("strong")
    expect(page.locator("#picture-chip")).to_be_visible()
    page.locator("#remove-picture").press("Enter")
    expect(page.locator("#pictures-title")).to_have_text("Newest pictures")


def test_a_picture_is_chosen_and_combined_with_words(watched: Watched) -> None:
    page = watched.page
    page.locator("#picture-file").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": draw_picture(5)}
    )
    expect(pictures(page).first).to_have_attribute("data-id", "p-005")
    with page.expect_request(lambda request: "red hat" in (request.post_data or "")) as asked:
        page.locator("#text").fill("red hat")
    terms = json.loads(asked.value.post_data)["terms"]
    assert [sorted(term) for term in terms] == [["text"], ["image"]]
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    expect(pictures(page).first).to_have_attribute("data-id", "p-005")


def test_what_is_no_picture_is_said(watched: Watched) -> None:
    page = watched.page
    page.locator("#picture-file").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": b"words"}
    )
    expect(page.get_by_role("alert")).to_contain_text(
        "Can't read this file. Use a JPEG, PNG, WebP, GIF or AVIF"
    )


def test_filters_have_counts_and_narrow_the_results(watched: Watched) -> None:
    page = watched.page
    ann = page.locator("label", has_text="ann")
    expect(ann.locator("small")).to_have_text(str(len(range(0, NUM_PICTURES, 3))))
    ann.locator("input").check()
    expect(pictures(page).first).to_be_visible()
    wait_for(
        page,
        "[...document.querySelectorAll('#pictures .caption')].every((c) => c.textContent.startsWith('ann'))",
    )
    page.get_by_role("radio", name="Texts").check()
    expect(page.locator("#nothing")).to_contain_text("Nothing found")
    ann.locator("input").uncheck()
    expect(texts(page)).not_to_have_count(0)
    expect(page.locator("#pictures")).to_be_hidden()


def test_a_click_on_a_filter_counts_although_the_counts_change_before_it_ends(
    watched: Watched, site: Site
) -> None:
    page = watched.page
    bob = page.locator("label", has_text="bob")
    number = page.locator("label", has_text="Everything").locator("small")
    expect(number).not_to_be_empty()
    before = number.text_content()
    bob.hover()
    page.mouse.down()
    site.world.publish(upload("t-click", TextContent("a click")), partition=1)
    expect(number).not_to_have_text(before)
    page.mouse.up()
    expect(bob.locator("input")).to_be_checked()


@pytest.mark.parametrize("query", ["?modality=image", "?q=hat&modality=image"], ids=["newest", "a search"])
def test_scrolling_loads_everything_once(watched: Watched, site: Site, query: str) -> None:
    page = watched.page
    page.goto(f"{site.address}/{query}")
    show_the_rest(page, "pictures", is_search="q=" in query)
    expect(pictures(page).first).to_be_visible()
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while pictures(page).count() < NUM_PICTURES and time.monotonic() < deadline:
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)
    found = ids(pictures(page))
    assert len(found) == len(set(found)) >= NUM_PICTURES


@pytest.mark.parametrize("query", ["", "&q=hat"], ids=["newest", "a search"])
def test_scrolling_goes_on_and_uploads_appear_however_much_is_loaded(
    chromium: Any, crowded_site: Site, query: str
) -> None:
    with open_page(chromium, crowded_site.address) as watched:
        page = watched.page
        page.goto(f"{crowded_site.address}/?modality=text{query}")
        show_the_rest(page, "texts", is_search="q=" in query)
        expect(texts(page)).not_to_have_count(0)
        scroll_until(page, f"document.querySelectorAll('#texts .hit').length >= {NUM_CROWDED}")
        found = ids(texts(page))
        assert len(found) == len(set(found)) >= NUM_CROWDED
        newcomer = f"t-hat{len(query)}"
        occurred_at = datetime(2026, 1, 3, tzinfo=timezone.utc)
        crowded_site.world.publish(
            replace(upload(newcomer, TextContent("hat")), occurred_at=occurred_at), partition=0
        )
        page.wait_for_selector(f"#texts .hit[data-id={newcomer}]", state="attached")
        after = ids(texts(page))
        assert newcomer in after[:2]  # another picture has the same score
        assert [i for i in after if i != newcomer] == found
        watched.check()


def show_the_rest(page: Any, section: str, *, is_search: bool) -> None:
    """Ask for the hits that match badly, which a search shows behind a button."""
    if is_search:
        page.locator(f"#{section} .divider button").click()


def scroll_until(page: Any, condition: str) -> None:
    """Scroll down until a condition holds in the page."""
    page.evaluate(
        f"""() => new Promise((resolve) => {{
          const step = () => {{
            if ({condition}) {{ resolve(); return; }}
            window.scrollTo(0, document.body.scrollHeight);
            setTimeout(step, 20);
          }};
          step();
        }})"""
    )


def test_examples_go_into_a_basket_and_out_of_the_results(watched: Watched) -> None:
    page = watched.page
    give_pictures(page, 3)
    expect(pictures(page).first).to_have_attribute("data-id", "p-003")
    page.locator("#clear").click()
    hit = page.locator("#pictures [data-id]").first
    expect(page.locator("#pictures-title")).to_have_text("Newest pictures")
    chosen = hit.get_attribute("data-id")
    hit.hover()
    hit.get_by_role("button", name="More like this").click()
    expect(page.locator(".chip.more")).to_contain_text(chosen)
    expect(page.locator(f"#pictures [data-id={chosen}]")).to_have_count(0)
    less = pictures(page).nth(1)
    less.hover()
    less.get_by_role("button", name="Less like this").click()
    expect(page.locator(".chip.less")).to_have_count(1)
    page.locator(".chip.more").click()
    expect(page.locator(".chip.more")).to_have_count(0)
    page.locator("#basket").get_by_text("Clear").click()
    expect(page.locator("#basket")).to_be_hidden()


def test_details_open_over_the_page_and_lead_to_similar_ones(watched: Watched) -> None:
    page = watched.page
    pictures(page).first.locator(".open").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Owner")
    dialog.get_by_role("button", name="Find similar").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".chip.more")).to_have_count(1)
    expect(page.locator("#pictures-title")).to_have_text("Pictures")
    pictures(page).first.locator(".open").click()
    expect(dialog).to_contain_text("Because of")


def test_details_show_the_score_of_the_newest_answer(watched: Watched) -> None:
    page = watched.page
    give_pictures(page, 40)
    expect(pictures(page).first).to_have_attribute("data-id", "p-040")
    with page.expect_response(lambda one: one.url.endswith("/v1/search")) as answered:
        page.locator("#text").fill("a red dress")
    found = answered.value.json()["results"]["image"]["hits"]
    hit = page.locator("#pictures [data-id=p-040]")
    expect(hit.locator(".level")).to_have_text("")  # a search by several parts has no percentiles
    hit.locator(".open").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Score (cosine)")).to_be_hidden()
    dialog.get_by_text("Numbers").click()
    [score] = [one["score"] for one in found if one["content_id"] == "p-040"]
    expect(dialog.locator(".numbers dd").first).to_have_text(f"{score:.4f}")


def test_an_upload_appears_by_itself_in_the_search_that_it_matches(watched: Watched) -> None:
    page = watched.page
    page.locator("#text").fill("violet gloves")
    wait_answered(page)
    before = searchable(page)
    page.locator("#open-upload").click()
    page.locator("#upload-text").fill("violet gloves of wool")
    page.locator("#upload summary").click()
    page.locator("#upload-owner").fill("dan")
    page.locator("#upload-files").set_input_files(
        {"name": "Gloves, new.png", "mimeType": "image/png", "buffer": draw_picture(900)}
    )
    page.locator("#upload-form").get_by_role("button", name="Upload").click()
    said = page.locator("#uploads .is-searchable .said")
    expect(said).to_have_count(2)
    assert all(re.fullmatch(r"Searchable after \d+\.\d\d s", words) for words in said.all_text_contents())
    page.keyboard.press("Escape")
    expect(texts(page).first).to_contain_text("violet gloves of wool")
    expect(page.locator("#live-text")).to_have_text(re.compile(f"^{before + 2:,} items"))
    page.locator("#clear").click()
    expect(page.locator("label", has_text="dan").locator("small")).to_have_text("2")


def test_an_upload_from_elsewhere_appears_and_moves_the_line(watched: Watched, site: Site) -> None:
    page = watched.page
    page.locator("#text").fill("orange socks")
    wait_answered(page)
    before = searchable(page)
    site.world.publish(upload("t-socks", TextContent("orange socks")), partition=1)
    expect(texts(page).first).to_have_attribute("data-id", "t-socks")
    expect(texts(page).first).to_have_class(re.compile("is-new"))
    wait_for(page, f"!document.querySelector('#live-text').textContent.startsWith('{before} ')")
    expect(page.locator("#live-text")).to_have_text(re.compile(r"^[\d,]+ items · live$"))
    expect(page.locator("#live")).to_have_attribute("title", re.compile(r"s behind\n.*generation"))


def test_an_upload_that_comes_before_the_line_is_live_appears_all_the_same(
    watched: Watched, site: Site
) -> None:
    page, held = watched.page, []
    page.route("**/v1/live", lambda route: held.append(route))
    page.goto(f"{site.address}/?q=ivory+mittens")
    wait_answered(page)
    site.world.publish(upload("t-mittens", TextContent("ivory mittens")), partition=1)
    site.wait_until_served("t-mittens")
    wait_until(page, lambda: bool(held))
    held[0].continue_()
    expect(texts(page).first).to_have_attribute("data-id", "t-mittens")


def test_an_upload_that_is_refused_says_why(watched: Watched) -> None:
    page = watched.page
    page.locator("#open-upload").click()
    page.locator("#upload-files").set_input_files(
        {"name": "bad.png", "mimeType": "image/png", "buffer": b"words"}
    )
    page.locator("#upload-form").get_by_role("button", name="Upload").click()
    expect(page.locator("#uploads .is-refused .said")).not_to_be_empty()
    assert any("415" in error for error in watched.errors)
    watched.errors.clear()  # Chromium logs refused requests, and the preview of what is not a picture


def test_words_from_events_stay_words(watched: Watched) -> None:
    page = watched.page
    page.locator("#text").fill("hostile words")
    expect(texts(page).first.locator(".words")).to_have_text("<img src=x onerror=alert(1)> hostile words")
    texts(page).first.locator(".open").click()
    expect(page.get_by_role("dialog").locator(".whole")).to_contain_text("<img src=x")
    assert page.locator("dialog a").count() == 0  # its link begins with javascript:
    assert page.locator("#texts .words img").count() == 0


def test_the_page_is_used_by_keyboard_alone(watched: Watched) -> None:
    page = watched.page
    expect(pictures(page).first).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("red hat")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#texts .open')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#text")).to_be_focused()


@pytest.mark.parametrize("is_gone", [False, True], ids=["moved", "gone"])
def test_a_later_answer_does_not_move_the_focus(watched: Watched, is_gone: bool) -> None:
    """A person tabs through hits while the answer to the last letter is still on its way."""
    page, second = watched.page, ""

    def answer(route: Any) -> None:
        """Answer as for "red hat", where all texts match well, and change the second one's place later."""
        body = {**route.request.post_data_json, "text": "red hat"}
        response = route.fetch(post_data=json.dumps(body))
        document = response.json()
        hits = document["results"]["text"]["hits"]
        for hit in hits:
            hit["percentile"] = 1.0
        if second and is_gone:
            hits[:] = [hit for hit in hits if hit["content_id"] != second]
        elif second:
            hits[:2] = reversed(hits[:2])  # the page moves the element of the second one
        route.fulfill(response=response, json=document)

    page.route("**/v1/search", answer)
    page.goto(f"{watched.address}/?q=red+hat")
    expect(texts(page).nth(1)).to_be_visible()
    second = str(texts(page).nth(1).get_attribute("data-id"))
    page.locator(f"#texts [data-id='{second}'] .open").focus()
    with page.expect_response("**/v1/search"):
        page.evaluate(
            """() => {
                const input = document.querySelector("#text");
                input.value = "red hat x";
                input.dispatchEvent(new Event("input"));
            }"""
        )
    if is_gone:
        expect(page.locator(f"#texts [data-id='{second}']")).to_have_count(0)
        assert page.evaluate("document.activeElement.matches('#texts .open')")
    else:
        expect(texts(page).first).to_have_attribute("data-id", second)
        expect(texts(page).first.locator(".open")).to_be_focused()


def test_the_ring_around_a_focused_filter_is_not_cut(watched: Watched) -> None:
    page = watched.page
    expect(page.locator(".filters input").first).to_be_visible()
    room = page.evaluate(
        """() => {
            const left = (place) => document.querySelector(place).getBoundingClientRect().left;
            return left(".filters input") - left(".filters");
        }"""
    )
    assert room >= 4  # an outline of two pixels, two pixels off


def test_every_control_has_a_name(watched: Watched) -> None:
    page = watched.page
    expect(pictures(page).first).to_be_visible()
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea')].filter((element) =>
          !element.getAttribute('aria-label') && !element.textContent.trim() && !element.labels?.length
        ).map((element) => element.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("[aria-live=polite]").count() >= 2


@pytest.mark.parametrize("size", [(360, 740), (768, 1024)], ids=["phone", "tablet"])
def test_it_fits_small_screens(chromium: Any, site: Site, size: tuple[int, int]) -> None:
    viewport = {"width": size[0], "height": size[1]}
    with open_page(chromium, site.address, viewport=viewport, has_touch=True) as watched:
        page = watched.page
        page.goto(f"{site.address}/?q=red")
        expect(texts(page).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        expect(page.locator("#filters")).to_be_hidden()
        page.get_by_role("button", name="Filters").click()
        expect(page.get_by_role("radio", name="Pictures")).to_be_visible()
        watched.check()


def test_it_is_dark_where_people_want_it_dark(chromium: Any, site: Site) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        with open_page(chromium, site.address, color_scheme=scheme) as watched:
            watched.page.goto(site.address)
            grounds.append(watched.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(250, 250, 248)", "rgb(19, 21, 20)"]


def test_it_asks_for_a_key_once_and_shows_everything_with_it(chromium: Any, site: Site) -> None:
    with open_page(chromium, site.guarded_address) as watched:
        page = watched.page
        page.goto(site.guarded_address)
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("not the key")
        dialog.get_by_role("button").click()
        expect(dialog).to_contain_text("not valid")
        dialog.get_by_label("Key").fill(API_KEY)
        dialog.get_by_role("button").click()
        expect(pictures(page).first.locator("img")).to_be_visible()
        wait_for(page, "document.querySelector('#pictures img').naturalWidth > 0")
        assert page.locator("#pictures img").first.get_attribute("src").startswith("blob:")
        page.reload()
        expect(pictures(page).first.locator("img")).to_be_visible()
        assert {error for error in watched.errors if "401" not in error} == set()
