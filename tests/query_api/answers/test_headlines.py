"""Every answer shows the same fields of a content, and the writer writes just those that are documented."""

from __future__ import annotations

import pytest

from fakes.hash_encoder import draw_picture
from query_api.answers.headlines import (
    ContentFields,
    ContentHeadline,
    ShownContent,
    read_content,
    read_headlines,
)
from query_api.errors import ApiError
from query_api.serving.engine import Snapshot
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
    of_the_content_alone = {"offset", "truncated", "sha256"}
    assert content.model_dump(exclude=of_the_content_alone) == headline
    assert set(ContentFields.model_fields) == {*headline, *of_the_content_alone}


def test_without_a_live_content_there_is_nothing_to_show(searcher: Snapshot) -> None:
    with pytest.raises(ApiError) as refused:
        read_content(searcher, "nothing", [])
    assert refused.value.code == "unknown_content"
