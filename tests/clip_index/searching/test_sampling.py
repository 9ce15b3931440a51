"""Samples of an index: live contents of one modality, each at most once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from clip_index.searching.searcher import Searcher
from fakes.hash_encoder import draw_picture
from tests.query_api.small_index import SmallIndex


def open_searcher(index: SmallIndex) -> Searcher:
    reader = index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def sampled_ids(searcher: Searcher, num_contents: int) -> list[str]:
    locations = searcher.sample("text", num_contents)
    return [content.content_id for content in searcher.read_many(locations, ())]


def test_every_live_content_of_the_modality_may_be_drawn_once(tmp_path: Path) -> None:
    index = SmallIndex(tmp_path / "index").create()
    for start in (0, 10, 20):
        index.commit(start % 2, *(index.text(f"t-{n}", f"text {n}") for n in range(start, start + 10)))
    index.commit(1, index.image("p", draw_picture(1)))
    index.commit(0, index.removal("t-3"))
    searcher = open_searcher(index)
    live = {f"t-{n}" for n in range(30)} - {"t-3"}
    assert Counter(sampled_ids(searcher, 100)) == Counter(live)
    some = sampled_ids(searcher, 12)
    assert len(set(some)) == 12
    assert set(some) < live
    assert some == sampled_ids(open_searcher(index), 12)


def test_an_empty_index_has_no_sample(tmp_path: Path) -> None:
    assert sampled_ids(open_searcher(SmallIndex(tmp_path / "index").create()), 5) == []
