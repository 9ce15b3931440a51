"""Every answer shows the same fields of a content, and the writer writes just those that are documented."""

from __future__ import annotations

import pytest
from pydantic_core import to_json

from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.answers.headlines import (
    ContentFields,
    ContentHeadline,
    ShownContent,
    read_content,
    read_headlines,
    read_headlines_of_hits,
)
from query_api.answers.snapshot import build_snapshot, snapshot_json
from query_api.contract.models import Include
from query_api.errors import ApiError
from query_api.serving.engine import Hit, Snapshot
from query_api.serving.shown_links import LinkShowingReader
from tests.query_api.small_index import SmallIndex


@pytest.fixture
def searcher(small_index: SmallIndex) -> Snapshot:
    small_index.commit(
        1,
        small_index.text("text", "a red hat", owner_id="owner", metadata={"price": 20.0}),
        small_index.image("image", draw_picture(7), thumbnail=b"webp"),
    )
    reader = small_index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


@pytest.mark.parametrize("content_id", ["text", "image"])
def test_a_headline_has_the_fields_that_every_answer_shows(searcher: Snapshot, content_id: str) -> None:
    location = searcher.find(content_id)
    assert location is not None
    [headline] = read_headlines(searcher, [location], [])
    assert list(headline) == list(ShownContent.model_fields)


@pytest.mark.parametrize("content_id", ["text", "image"])
def test_what_is_on_demand_stands_behind_in_the_documented_order(searcher: Snapshot, content_id: str) -> None:
    location = searcher.find(content_id)
    assert location is not None
    include = ("thumbnail_url", "thumbnail", "vector", "metadata", "text")
    [headline] = read_headlines(searcher, [location], include)
    assert list(headline) == list(ContentHeadline.model_fields)


def test_a_content_by_its_id_shows_the_fields_of_a_headline_and_its_offset(searcher: Snapshot) -> None:
    location = searcher.find("text")
    assert location is not None
    [headline] = read_headlines(searcher, [location], ["text", "metadata", "vector"])
    content = read_content(searcher, "text", ["vector"])
    of_the_content_alone = {"offset", "truncated", "sha256", "patched_at"}
    assert content.model_dump(exclude=of_the_content_alone) == headline
    assert set(ContentFields.model_fields) == {*headline, *of_the_content_alone}


def test_without_a_live_content_there_is_nothing_to_show(searcher: Snapshot) -> None:
    with pytest.raises(ApiError) as refused:
        read_content(searcher, "nothing", [])
    assert refused.value.code == "unknown_content"


@pytest.mark.parametrize("content_id", ["text", "image", "t-red", "t-blue", "p-1"])
def test_a_headline_is_the_same_whether_it_is_read_alone_or_with_what_include_names(
    searcher: Snapshot, content_id: str
) -> None:
    location = searcher.find(content_id)
    assert location is not None
    [alone], [with_text] = (read_headlines(searcher, [location], include) for include in ([], ["text"]))
    del with_text["text"]
    assert list(alone.items()) == list(with_text.items())


@pytest.mark.parametrize("include", [[], ["text"]], ids=["alone", "with its text"])
def test_the_headline_of_a_hit_is_that_of_its_location(searcher: Snapshot, include: list[Include]) -> None:
    [query] = HashEncoder().encode([HashEncoder().prepare_text("a red hat")])
    [hits] = searcher.search(query, k=10, modality="text")
    assert len(hits) == 4
    locations = [hit.location for hit in hits]
    expected = read_headlines(searcher, locations, include)
    assert to_json(read_headlines_of_hits(searcher, hits, include)) == to_json(expected)


def test_a_headline_shows_the_links_that_the_reader_shows(small_index: SmallIndex) -> None:
    reader = LinkShowingReader(
        small_index.open_reader(), lambda links: [link and f"{link}?signed" for link in links]
    )
    reader.reload()
    assert reader.searcher is not None
    found = [reader.searcher.find(content_id) for content_id in ("p-1", "t-red")]
    locations = [location for location in found if location is not None]
    links = [headline["link"] for headline in read_headlines(reader.searcher, locations, [])]
    assert links == ["https://x.test/1?signed", None]
    hits = [
        Hit(content_id, 1.0, "text", location) for content_id, location in zip("ab", locations, strict=True)
    ]
    links = [headline["link"] for headline in read_headlines_of_hits(reader.searcher, hits, [])]
    assert links == ["https://x.test/1?signed", None]


def test_the_snapshot_is_written_once_for_each_searcher(searcher: Snapshot) -> None:
    assert snapshot_json(searcher) is snapshot_json(searcher)
    assert snapshot_json(searcher) == to_json(build_snapshot(searcher))
