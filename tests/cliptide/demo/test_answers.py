import json

from rich.console import Console

from cliptide.demo.garments.catalogue import CatalogueContent, SampleQuery, build_catalogue, sample_queries
from cliptide.demo.questions import AnsweredQuery, ask, gallery_sections, mean_precision
from cliptide.demo.report import DemoReport, build_answers_table
from cliptide.searching.answers import AnsweredHit
from cliptide.searching.query_client import QueryClient
from tests.cliptide.stub_query_service import StubQueryService

CATALOGUE = build_catalogue(60, 5, seed=3)
CONTENTS = {content.content_id: content for content in CATALOGUE}
QUERIES = sample_queries(CATALOGUE)


def pictures(query: SampleQuery, num_right: int, num_wrong: int) -> list[CatalogueContent]:
    images = [content for content in CATALOGUE if content.modality == "image"]
    right = [content for content in images if content.combination == query.combination]
    wrong = [content for content in images if content.combination != query.combination]
    return right[:num_right] + wrong[:num_wrong]


def hit(content: CatalogueContent) -> AnsweredHit:
    return AnsweredHit("image", content.content_id, 0.5, None, None, None)


def test_precision_counts_the_pictures_that_show_what_was_asked_for() -> None:
    query = QUERIES[0]
    hits = [{"content_id": c.content_id, "score": 0.5} for c in pictures(query, num_right=6, num_wrong=2)]
    answer = {"results": {"image": {"hits": hits}}}
    with StubQueryService({"POST /v1/search": (200, answer)}).serving() as service:
        [answered] = ask(QueryClient(service.url), [query], CONTENTS)
        [(_, _, request)] = service.requests
    assert request == {"k": 8, "modality": "image", "text": query.text}
    assert answered.num_right == 6
    assert answered.precision == 0.75


def test_a_picture_is_asked_by_its_bytes() -> None:
    query = SampleQuery("image", QUERIES[0].combination, "as drawn", seed=1)
    with StubQueryService(
        {"POST /v1/search": (200, {"results": {"image": {"hits": []}}})}
    ).serving() as service:
        [answered] = ask(QueryClient(service.url), [query], CONTENTS)
        [(_, _, request)] = service.requests
    assert len(request["image"]) > 100
    assert answered.precision == 0.0
    assert answered.title == "a picture of: as drawn"


def test_only_text_queries_count_for_the_mean() -> None:
    text, image = QUERIES[0], SampleQuery("image", QUERIES[0].combination, "as drawn", seed=1)
    answered = [AnsweredQuery(text, [], 8), AnsweredQuery(text, [], 4), AnsweredQuery(image, [], 0)]
    assert mean_precision(answered) == 0.75
    assert mean_precision([]) == 0.0


def test_a_gallery_shows_every_hit_as_a_picture() -> None:
    image_query = SampleQuery("image", QUERIES[0].combination, "as drawn", seed=1)
    found = [hit(content) for content in pictures(QUERIES[0], 2, 1)]
    by_text, by_image = gallery_sections(
        [AnsweredQuery(QUERIES[0], found, 2), AnsweredQuery(image_query, found, 2)], CONTENTS
    )
    assert len(by_text.items) == 3
    assert all((item.picture or "").startswith("data:image/jpeg;base64,") for item in by_text.items)
    assert by_text.picture is None
    assert (by_image.picture or "").startswith("data:image/jpeg;base64,")


def test_a_table_has_a_line_for_each_query() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(build_answers_table([AnsweredQuery(QUERIES[0], [hit(CATALOGUE[0])], 7)]))
    shown = capture.get()
    assert QUERIES[0].text in shown
    assert " 7 " in shown
    assert CATALOGUE[0].content_id in shown


def report(**changes: object) -> DemoReport:
    values: dict[str, object] = {
        "published": 10,
        "searchable": 10,
        "dead_letters": 0,
        "published_per_second": 95.4,
        "seconds": 1.234567,
        "searchable_after_seconds": [0.1, 0.2, 0.3],
        "precision": 0.95,
    }
    return DemoReport(**{**values, **changes})  # type: ignore[arg-type]


def test_the_report_is_one_json_object() -> None:
    assert json.loads(report(searchable=9).as_json()) == {
        "published": 10,
        "searchable": 9,
        "dead_letters": 0,
        "lost": 1,
        "seconds": 1.23,
        "searchable_after_event_seconds": {"p50": 0.2, "p99": 0.3},
        "precision_at_8": 0.95,
    }


def test_a_run_is_good_when_nothing_is_lost_and_the_answers_are_right() -> None:
    assert report().is_good
    assert not report(searchable=9).is_good
    assert not report(precision=0.89).is_good


def test_the_report_says_in_words_what_it_measured() -> None:
    words = report(published=2200, searchable=2200).in_words()
    assert "2,200 of 2,200 uploads are searchable, 0 lost" in words
    assert "Published at 95 uploads a second" in words
