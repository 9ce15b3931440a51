"""Pages of an engine that keeps no former generation: each one ranks what is there at its time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clip_index.views.snapshot import Hit, Location
from query_api.search.paging.pages import Page, build_page_requests, next_page
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import find_rankings
from query_api.search.request.options import RatedOptions

_K = 3


class LiveContents:
    """Stands for a snapshot of such an engine: scores by content id, which change while pages are read."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def search(self, queries: Any, *, k: int, **_: Any) -> list[list[Hit]]:
        ranked = sorted(self.scores.items(), key=lambda one: (-one[1], one[0]))
        location: Any = Location
        return [
            [Hit(name, score, "text", location) for name, score in ranked[:k]] for _ in range(len(queries))
        ]


def read_page(contents: Any, page: Page) -> tuple[list[str], Page | None]:
    requests = build_page_requests(page)
    [ranking] = find_rankings(contents, requests)
    return [hit.content_id for hit in ranking.hits], next_page(page, {"text": ranking})


def begin() -> Page:
    query = QueryEmbedding(np.ones(4, np.float32), modality="text")
    return Page(query, RatedOptions(modality="text", k=_K), {}, {"text": None}, are_ranks_stable=False)


@pytest.mark.parametrize("num_arriving", [0, 1, _K, 50])
def test_contents_that_arrive_push_no_other_into_two_pages(num_arriving: int) -> None:
    there = {f"c-{n:02}": 1 - n / 100 for n in range(20)}
    contents, page, read = LiveContents(dict(there)), begin(), list[str]()
    following: Page | None = page
    while following is not None:
        ids, following = read_page(contents, following)
        read += ids
        contents.scores |= {f"new-{len(read)}-{n}": 2.0 for n in range(num_arriving)}
    assert read == list(there)


def test_contents_that_go_pull_no_other_out_of_the_pages() -> None:
    there = {f"c-{n:02}": 1 - n / 100 for n in range(20)}
    contents, read = LiveContents(dict(there)), list[str]()
    following: Page | None = begin()
    while following is not None:
        ids, following = read_page(contents, following)
        read += ids
        for gone in ids:  # the last hit of the page as well
            del contents.scores[gone]
    assert read == list(there)


def test_equal_scores_are_told_apart_by_their_ids() -> None:
    there = {f"c-{n:02}": 0.5 for n in range(10)}
    contents, read = LiveContents(dict(there)), list[str]()
    following: Page | None = begin()
    while following is not None:
        ids, following = read_page(contents, following)
        read += ids
        contents.scores[f"a-{len(read)}"] = 0.5
    assert read == list(there)


def test_what_arrives_below_the_last_hit_is_on_a_later_page() -> None:
    contents = LiveContents({f"c-{n:02}": 1 - n / 100 for n in range(6)})
    first, following = read_page(contents, begin())
    contents.scores["new"] = 0.975 - 0.01
    assert following is not None
    second, _ = read_page(contents, following)
    assert first == ["c-00", "c-01", "c-02"]
    assert second == ["c-03", "new", "c-04"] or second == ["new", "c-03", "c-04"]
