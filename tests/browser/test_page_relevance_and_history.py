"""How honest answers are, and what survives back, forward, reload and a lost network, in a real browser."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from schemas.events import TextContent
from tests.browser.conftest import Site, Watched, open_page
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
    wait_until,
)

TEXT_HIT = {"content_id": "t-red-hat", "modality": "text", "text": "a red hat"}
PICTURE_HIT = {"content_id": "p-001", "modality": "image", "text": None}


def hit(like: dict[str, Any], score: float, percentile: float, **fields: Any) -> dict[str, Any]:
    times = {"occurred_at": "2026-01-02T00:00:00Z", "source": "shop", "owner_id": "ann", "link": None}
    rest = {"version": None, "metadata": {}, "thumbnail_url": None}
    return {**times, **rest, **like, "score": score, "percentile": percentile, **fields}


def answer_with(page: Any, *, image: list[Any], text: list[Any]) -> None:
    """Let the service answer each search with these hits."""
    body = {"results": {"image": {"hits": image}, "text": {"hits": text}}, "next_cursor": None}

    def fulfil(route: Any) -> None:
        route.fulfill(json={**body, "snapshot": {}, "timings": {}})

    page.route("**/v1/search", fulfil)
    counted = {"fields": {}, "num_counted": 0, "is_complete": True, "snapshot": {}, "timings": {}}
    page.route("**/v1/facets", lambda route: route.fulfill(json=counted))


def search(page: Any, text: str = "a hat") -> None:
    page.locator("#text").fill(text)
    page.keyboard.press("Enter")
    wait_answered(page)


def levels(page: Any, section: str) -> list[str]:
    return [str(one) for one in page.locator(f"#{section} .best .level").all_text_contents()]


FIRST_IS_LOADED = "document.querySelector('#pictures img').naturalWidth > 0"
SECTIONS = "[...document.querySelectorAll('main > section:not([hidden])')].map((one) => one.id)"


def order(page: Any) -> list[str]:
    """Return the sections that are shown, from the top."""
    return [str(name) for name in page.evaluate(SECTIONS)]


def test_words_and_bars_come_from_the_percentile_and_not_from_the_best_hit(watched: Watched) -> None:
    page = watched.page
    found = [
        hit(PICTURE_HIT, 0.3, 1.0),
        hit(PICTURE_HIT, 0.29, 0.92, content_id="p-002"),
        hit(PICTURE_HIT, 0.28, 0.4, content_id="p-003"),
        hit(PICTURE_HIT, -0.1, 0.3, content_id="p-004"),
    ]
    answer_with(page, image=found, text=[])
    search(page)
    assert levels(page, "pictures") == ["strong", "fair"]
    expect(page.locator("#answer")).to_contain_text("2 pictures match well")
    divider = page.locator("#pictures .divider")
    expect(divider).to_contain_text("Less similar")
    divider.get_by_role("button").click()
    rest = page.locator("#pictures .rest .hit")
    expect(rest).to_have_count(2)
    assert page.locator("#pictures .rest .level").all_text_contents() == ["weak", ""]
    expect(rest.nth(1).locator(".bar")).to_have_class("bar is-empty")  # a negative score has no bar


def test_a_query_that_finds_nothing_good_says_so(watched: Watched) -> None:
    page = watched.page
    closest = [hit(PICTURE_HIT, 0.4, 0.5, content_id=f"p-{n:03d}") for n in range(30)]
    answer_with(page, image=closest, text=[hit(TEXT_HIT, -0.16, 0.1)])
    search(page, "quarterly tax report")
    expect(page.locator("#poor")).to_have_text("Nothing matches well. These are the closest.")
    expect(page.locator("#answer")).to_contain_text("Nothing matches well.")
    expect(page.locator("#pictures .best .hit")).to_have_count(12)
    search(page, "another")
    answer_with(page, image=[hit(PICTURE_HIT, 0.4, 1.0)], text=[])
    search(page, "a hat")
    expect(page.locator("#poor")).to_be_hidden()


@pytest.mark.parametrize(
    ("picture", "text", "expected"),
    [
        (1.0, 1.0, ["pictures", "texts"]),
        (0.5, 1.0, ["texts", "pictures"]),
        (1.0, 0.92, ["pictures", "texts"]),
    ],
    ids=["pictures first when equal", "texts answer better", "pictures answer better"],
)
def test_the_section_that_answers_best_comes_first(
    watched: Watched, picture: float, text: float, expected: list[str]
) -> None:
    page = watched.page
    answer_with(page, image=[hit(PICTURE_HIT, 0.5, picture)], text=[hit(TEXT_HIT, 0.5, text)])
    search(page)
    assert order(page) == expected


def test_texts_that_match_badly_do_not_stand_beside_pictures_that_match_well(watched: Watched) -> None:
    page = watched.page
    answer_with(page, image=[hit(PICTURE_HIT, 0.5, 1.0)], text=[hit(TEXT_HIT, -0.16, 0.0)])
    search(page)
    assert order(page) == ["pictures"]


def test_a_tile_is_called_by_its_title_and_else_by_its_owner_or_id(watched: Watched) -> None:
    page = watched.page
    found = [
        hit(PICTURE_HIT, 0.5, 1.0, title="A sunny hat"),
        hit(PICTURE_HIT, 0.5, 1.0, content_id="p-2", metadata={"caption": "Straw hat", "size": 3}),
        hit(PICTURE_HIT, 0.5, 1.0, content_id="p-3"),
        hit(PICTURE_HIT, 0.5, 1.0, content_id="p-4", owner_id=None),
    ]
    answer_with(page, image=found, text=[])
    search(page)
    titles = page.locator("#pictures .title:not(div)").all_text_contents()
    assert titles == ["A sunny hat", "Straw hat", "ann", "p-4"]
    for title in titles:
        expect(page.get_by_role("button", name=f"{title}, strong match")).to_have_count(1)


def test_a_link_without_a_picture_is_replaced_by_the_thumbnail(chromium: Any, site: Site) -> None:
    with open_page(chromium, site.address, device_scale_factor=2) as watched:
        page = watched.page
        page.goto(site.address)
        allow = "document.querySelector('meta[name=cliptide-link-hosts]').content = '127.0.0.2'"
        page.evaluate(allow)  # the browser itself still refuses this host
        place = {"link": "http://127.0.0.2/x.png", "thumbnail_url": "/v1/contents/p-001/thumbnail"}
        answer_with(page, image=[hit(PICTURE_HIT, 0.5, 1.0, **place)], text=[])
        search(page)
        image = page.locator("#pictures img")
        expect(image).to_be_visible()
        expect(image).not_to_have_attribute("srcset", re.compile("."))
        assert any("127.0.0.2" in error for error in watched.errors)


@pytest.mark.parametrize(("scale", "size"), [(1, "small"), (2, "kept")], ids=["1x", "2x"])
def test_a_screen_loads_each_thumbnail_in_the_size_that_it_needs_and_no_other(
    chromium: Any, site: Site, scale: int, size: str
) -> None:
    with open_page(chromium, site.address, device_scale_factor=scale) as watched:
        page = watched.page
        requested: list[tuple[str, str]] = []  # the thumbnail's path, and its size

        def note(request: Any) -> None:
            path, _, query = request.url.partition("?")
            if path.endswith("/thumbnail"):
                requested.append((path, "small" if "size=small" in query else "kept"))

        page.on("request", note)
        page.goto(f"{site.address}/?modality=image")
        expect(pictures(page).first).to_be_visible()
        wait_until(page, lambda: page.evaluate(FIRST_IS_LOADED))
        assert {size_of_one for _, size_of_one in requested} == {size}
        assert len(requested) == len(set(requested))
        watched.check()


def test_back_and_forward_restore_the_query_the_filters_and_the_examples(
    watched: Watched, site: Site
) -> None:
    page = watched.page
    search(page, "red hat")
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    page.get_by_role("radio", name="Texts").check()
    page.locator("#texts .open").first.click()
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(page.locator(".chip.more")).to_have_count(1)
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".chip.more")).to_have_count(0)
    expect(page.get_by_role("radio", name="Texts")).to_be_checked()
    page.go_back()
    expect(page.get_by_role("radio", name="Everything")).to_be_checked()
    expect(page.locator("#text")).to_have_value("red hat")
    page.go_back()
    expect(page.locator("#text")).to_have_value("")
    for _ in range(4):
        page.go_forward()
    expect(page.locator(".chip.more")).to_contain_text("a red hat")


def test_typing_makes_no_entry_for_each_letter(watched: Watched, site: Site) -> None:
    page = watched.page
    expect(pictures(page).first).to_be_visible()
    before = page.evaluate("history.length")
    page.locator("#text").press_sequentially("red hat")
    expect(page).to_have_url(f"{site.address}/?q=red+hat")
    assert page.evaluate("history.length") == before
    page.keyboard.press("Enter")
    assert page.evaluate("history.length") == before + 1
    page.go_back()
    expect(page).to_have_url(f"{site.address}/")


def test_a_reload_and_a_shared_link_restore_examples_and_details(
    watched: Watched, site: Site, chromium: Any
) -> None:
    page = watched.page
    page.goto(f"{site.address}/?q=hat&more=p-001&less=p-002&owner_id=bob&open=t-red-hat")
    for look in ("shared", "reloaded"):
        expect(page.get_by_role("dialog")).to_contain_text("a red hat")
        expect(page.locator(".chip.more")).to_contain_text("p-001")
        expect(page.locator(".chip.less")).to_contain_text("p-002")
        expect(page.locator("label", has_text="bob").locator("input")).to_be_checked()
        if look == "shared":
            page.reload()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("open="))  # a moment later: going back takes the browser a while


@pytest.mark.parametrize(
    "query",
    [
        "?from.occurred_at=2026-99-99",
        "?from.metadata.price=cheap&to.metadata.price=",
        "?modality=video&metadata.=x&more=",
        "?open=nobody&more=nobody",
        "?picture=nothing",
    ],
)
def test_a_broken_link_still_shows_the_page(watched: Watched, site: Site, query: str) -> None:
    page = watched.page
    page.goto(f"{site.address}/{query}")
    expect(page.locator("#pictures .hit, #nothing:visible").first).to_be_visible()
    watched.errors[:] = [error for error in watched.errors if "422" not in error]


def test_without_percentiles_more_is_shown_by_a_button_and_not_by_scrolling(
    watched: Watched, site: Site
) -> None:
    page = watched.page
    page.goto(f"{site.address}/?more=p-001&modality=image")
    expect(pictures(page)).to_have_count(48)
    page.mouse.wheel(0, 20_000)
    page.get_by_role("button", name="Show more pictures").click()
    expect(pictures(page)).not_to_have_count(48)
    page.goto(f"{site.address}/?more=p-001")  # beside texts, the title leads to all pictures
    expect(page.get_by_role("button", name="All pictures")).to_be_visible()
    expect(page.get_by_role("button", name="Show more pictures")).to_have_count(0)


def test_a_reload_keeps_the_picture_and_a_shared_link_says_that_it_cannot(
    watched: Watched, site: Site, chromium: Any
) -> None:
    page = watched.page
    give_pictures(page, 17)
    expect(pictures(page).first).to_have_attribute("data-id", "p-017")
    page.reload()
    expect(pictures(page).first).to_have_attribute("data-id", "p-017")
    expect(page.locator("#picture-chip")).to_be_visible()
    with open_page(chromium, site.address) as other:
        other.page.goto(page.url)
        expect(other.page.get_by_role("alert")).to_contain_text("only its sender's browser has")
        other.check()


def test_arrow_keys_in_the_details_lead_to_the_next_hit(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?modality=image")
    expect(pictures(page).nth(2)).to_be_visible()
    first, second = ids(pictures(page))[:2]
    pictures(page).first.locator(".open").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Previous")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading")).to_have_text(second)
    assert f"open={second}" in page.url
    page.keyboard.press("ArrowLeft")
    expect(dialog.get_by_role("heading")).to_have_text(first)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(f"#pictures [data-id={first}] .open")).to_be_focused()


def test_a_lost_network_is_said_over_the_last_results_and_tried_again(watched: Watched) -> None:
    page = watched.page
    expect(pictures(page).first).to_be_visible()
    page.context.set_offline(True)
    page.locator("#text").fill("red hat")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("You are offline")
    expect(alert.get_by_role("button", name="Try again now")).to_be_visible()
    expect(page.locator("main.is-old")).to_have_count(1)
    expect(pictures(page).first).to_be_visible()
    page.context.set_offline(False)
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    expect(alert).to_be_hidden()
    expect(page.locator("main.is-old")).to_have_count(0)
    watched.errors.clear()  # Chromium logs requests that failed


def test_a_busy_service_is_asked_again_by_the_button(watched: Watched) -> None:
    page = watched.page
    error = {"error": {"code": "overloaded", "message": "too many requests"}}
    busy = {"status": 503, "json": error, "headers": {"Retry-After": "600"}}
    page.route("**/v1/search", lambda route: route.fulfill(**busy))
    page.locator("#text").fill("red hat")
    expect(page.get_by_role("alert")).to_contain_text("The service is busy.")
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again now").click()
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    watched.errors.clear()


def test_a_thin_bar_shows_while_an_answer_takes_long_and_not_before(watched: Watched) -> None:
    page, held = watched.page, []
    expect(pictures(page).first).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()
    page.route("**/v1/search", lambda route: held.append(route))
    page.locator("#text").fill("red hat")
    expect(page.locator("#progress")).to_be_visible()
    wait_until(page, lambda: bool(held))
    held[0].continue_()
    expect(page.locator("#progress")).to_be_hidden()


def test_a_pause_in_typing_makes_one_search(watched: Watched) -> None:
    page, asked = watched.page, []
    expect(pictures(page).first).to_be_visible()
    page.on("request", lambda request: asked.append(request) if "/v1/search" in request.url else None)
    page.evaluate(
        """() => {
            const input = document.querySelector("#text");
            for (const text of ["r", "re", "red", "red ", "red h", "red hat"]) {
              input.value = text;
              input.dispatchEvent(new InputEvent("input", { bubbles: true }));
            }
        }"""
    )
    expect(texts(page).first).to_have_attribute("data-id", "t-red-hat")
    page.keyboard.press("/")
    page.keyboard.press("Enter")  # what is asked already is not asked again
    page.get_by_role("radio", name="Texts").check()
    expect(page.locator("#pictures")).to_be_hidden()
    assert [json.loads(one.post_data)["text"] for one in asked] == ["red hat", "red hat"]


def test_the_results_are_one_stop_of_the_tab_key_and_arrows_move_inside(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.address}/?modality=image")
    expect(pictures(page).nth(5)).to_be_visible()
    stops = page.locator('#pictures [tabindex="0"]')
    expect(stops).to_have_count(1)
    pictures(page).first.locator(".open").focus()
    page.keyboard.press("ArrowRight")
    expect(pictures(page).nth(1).locator(".open")).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().left")
    assert below == page.evaluate(
        "document.querySelectorAll('#pictures .open')[1].getBoundingClientRect().left"
    )
    page.keyboard.press("Home")
    expect(pictures(page).first.locator(".open")).to_be_focused()
    expect(stops).to_have_count(1)


def test_escape_clears_the_search_and_a_second_one_restores_it(watched: Watched) -> None:
    page = watched.page
    search(page, "red hat")
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_have_value("")
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_have_value("red hat")


def test_a_screen_reader_hears_an_answer_once(watched: Watched, site: Site) -> None:
    page = watched.page
    page.evaluate(
        """() => {
            const answer = document.querySelector("#answer");
            window.heard = [];
            const hear = () => window.heard.push(answer.textContent);
            new MutationObserver(hear).observe(answer, { childList: true });
        }"""
    )
    search(page, "red hat")
    before = searchable(page)
    site.world.publish(upload("t-unheard", TextContent("a quiet hat")), partition=1)
    expect(page.locator("#live-text")).to_have_text(re.compile(f"^{before + 1:,} items"))
    expect(page.locator("[data-id=t-unheard]")).to_be_attached()  # the answer has followed
    assert len([words for words in page.evaluate("window.heard") if words]) == 1
    assert page.locator("#live").get_attribute("aria-live") is None
