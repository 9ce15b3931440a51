"""Whichever ways a search takes through small indexes of every kind, it answers as a plain fold does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.content import EncodedContent, MetadataValue, Modality
from clip_index.masks import row_masks
from clip_index.masks.row_masks import RowMasks
from clip_index.masks.time_blocks import TimeBlocks
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import TIME_FIELD, AllOf, AnyOf, Condition, Exists, InRange, RowFilter
from clip_index.searching import searcher as searching
from clip_index.searching.searcher import Searcher
from clip_index.storage.bounded_cache import BoundedCache
from clip_index.vectors import flat_vectors, node_rows, queries, scattered_codes, shared_vectors
from clip_index.vectors.lists import inverted_lists, list_ranking, list_trial, stacked_lists
from clip_index.vectors.vector_file import write_fastest
from clip_index.views import best_rows, eligible, segment_view, tail
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import DIMENSION, add, content, create_index, removal, take_over
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import find_rankings
from query_api.search.ranking.ranking_requests import MAX_DEPTH, RankingRequest

MODALITIES: tuple[Modality, ...] = ("image", "text")
NUMBERS = (0.0, -0.0, 1.0, 2.5, 2.5, math.nan, math.inf, -math.inf, 2.0**53, 2.0**53 + 2, 1e300)
TIMES = (0, 0, 1, 999, 1_700_000_000_000, 1_700_000_000_001, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -5)
COLOURS = ("red", "green", "blue")
SCORE_ERROR = 2e-6
"""numpy adds in another order than FAISS."""


class Untold:
    """Is told of the search of each shard, so that shards are searched one by one."""

    def searching(self, _shard: str, _modality: Modality) -> AbstractContextManager[None]:
        return nullcontext()


def unit(rows: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return normalised


class Drawn:
    """Contents and queries of some clusters. The fold of the log is `live`, by content id."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._clusters = unit(self.rng.standard_normal((8, DIMENSION)))
        self._has_ties = self.rng.random() < 0.3
        self._former: list[np.ndarray] = []
        self._num = 0
        self.live: dict[str, EncodedContent] = {}

    def embeddings(self, num: int) -> np.ndarray:
        if self._former and self.rng.random() < 0.15:  # of a content that was uploaded before
            return self._former[self.rng.integers(len(self._former))][:num]
        drawn = self._draw_tied(num) if self._has_ties else self._draw(num)
        self._former.append(drawn)
        return drawn

    def _draw(self, num: int) -> np.ndarray:
        noise = 0.3 * self.rng.standard_normal((num, DIMENSION))
        return unit(self._clusters[self.rng.integers(len(self._clusters), size=num)] + noise)

    def _draw_tied(self, num: int) -> np.ndarray:
        """Four coordinates are 1/2 or -1/2, so scores are multiples of 1/4 and many are equal."""
        drawn = np.zeros((num, DIMENSION), np.float32)
        for row in drawn:
            row[self.rng.choice(DIMENSION // 2, 4, replace=False)] = self.rng.choice([-0.5, 0.5], 4)
        return drawn

    def content(self, content_id: str, windows: int) -> EncodedContent:
        is_text = self.rng.random() < 0.4
        num_windows = int(self.rng.integers(1, windows + 1)) if is_text else 1
        return content(
            content_id,
            modality="text" if is_text else "image",
            embeddings=self.embeddings(num_windows),
            occurred_at_ms=int(TIMES[self.rng.integers(len(TIMES))])
            if self.rng.random() < 0.3
            else self._num,
            source=str(self.rng.choice(["shop", "web", "phone"])),
            owner_id=None if self.rng.random() < 0.3 else f"owner-{self.rng.integers(40)}",
            metadata=self.metadata(),
        )

    def metadata(self) -> dict[str, MetadataValue]:
        self._num += 1
        drawn: dict[str, MetadataValue] = {"n": float(self._num)}
        if self.rng.random() < 0.5:
            drawn["special"] = float(NUMBERS[self.rng.integers(len(NUMBERS))])
        if self.rng.random() < 0.7:
            drawn["colour"] = str(self.rng.choice(COLOURS))
        if self.rng.random() < 0.2:
            drawn["is_new"] = bool(self.rng.random() < 0.5)
        if self.rng.random() < 0.3:
            drawn["tags"] = tuple(self.rng.choice(COLOURS, size=2, replace=False).tolist())
        return drawn

    def condition(self) -> Condition:
        rng = self.rng
        low, high = sorted(rng.uniform(0, self._num, 2).tolist())
        special, time = float(rng.choice(NUMBERS)), float(rng.choice(np.array(TIMES, float)))
        bound = str(rng.choice(["gt", "gte", "lt", "lte"]))
        drawn: list[Condition] = [
            InRange("metadata.n", gte=low, lt=high),
            InRange("metadata.n", lt=high),
            InRange("metadata.n", gt=low, lte=low + self._num / 12),
            InRange("metadata.special", **{bound: special}),
            InRange("metadata.special"),
            InRange(TIME_FIELD, gt=low, lte=high),
            InRange(TIME_FIELD, **{bound: time}),
            InRange(TIME_FIELD, gte=low, lt=low + self._num / 12),
            InRange(TIME_FIELD),
            InRange(TIME_FIELD, gte=high, lt=low),
            AnyOf("metadata.colour", (str(rng.choice(COLOURS)),)),
            AnyOf("metadata.colour", ("none",)),
            AnyOf("metadata.special", (special, "red", True)),
            AnyOf("metadata.is_new", (True, 1.0)),
            AnyOf("metadata.tags", ("red", "none")),
            AllOf("metadata.tags", ("red", "blue")),
            AnyOf("owner_id", (f"owner-{rng.integers(40)}",)),
            AnyOf("source", (str(rng.choice(["shop", "web"])), "phone")),
            AnyOf("modality", (str(rng.choice(MODALITIES)),)),
            Exists("metadata.special", is_present=bool(rng.random() < 0.5)),
            Exists("source"),
            AnyOf("content_id", tuple(rng.choice([*self.live, "nobody"], 3).tolist())),
        ]
        return drawn[rng.integers(len(drawn))]

    def row_filter(self) -> RowFilter:
        must, should, must_not = (
            tuple(self.condition() for _ in range(self.rng.choice([0, 1, 2], p=p)))
            for p in ([0.2, 0.6, 0.2], [0.85, 0.05, 0.1], [0.7, 0.25, 0.05])
        )
        return RowFilter(must, should, must_not)

    def query(self) -> np.ndarray:
        return (
            self.embeddings(1) if self.rng.random() < 0.8 else unit(self.rng.standard_normal((1, DIMENSION)))
        )


def passes(one: EncodedContent, row_filter: RowFilter) -> bool:
    """The definition of a filter."""
    return (
        all(meets(one, condition) for condition in row_filter.must)
        and (not row_filter.should or any(meets(one, condition) for condition in row_filter.should))
        and not any(meets(one, condition) for condition in row_filter.must_not)
    )


def meets(one: EncodedContent, condition: Condition) -> bool:
    value = value_of(one, condition.field)
    if isinstance(condition, Exists):
        return (value is not None) == condition.is_present
    if value is None:
        return False
    if isinstance(condition, InRange):
        return is_within(value, condition)
    values = value if isinstance(value, (list, tuple)) else [value]
    are_there = [any(type_of(w) is type_of(v) and w == v for v in values) for w in condition.values]
    return all(are_there) if isinstance(condition, AllOf) else any(are_there)


def type_of(value: Any) -> type:
    return float if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


def value_of(one: EncodedContent, field: str) -> Any:
    if field.startswith("metadata."):
        return one.facts.metadata.get(field.removeprefix("metadata."))
    if field == TIME_FIELD:
        return one.facts.occurred_at_ms
    return getattr(one if field in ("content_id", "modality") else one.facts, field)


def is_within(value: Any, condition: InRange) -> bool:
    if type_of(value) is not float:
        return False
    if condition.field == TIME_FIELD:
        value = float(value) if any(map(is_beyond_floats, bounds_of(condition))) else value
    gt, gte, lt, lte = condition.gt, condition.gte, condition.lt, condition.lte
    return (
        (gt is None or value > gt)
        and (gte is None or value >= gte)
        and (lt is None or value < lt)
        and (lte is None or value <= lte)
    )


def bounds_of(condition: InRange) -> list[float]:
    return [b for b in (condition.gt, condition.gte, condition.lt, condition.lte) if b is not None]


def is_beyond_floats(bound: float) -> bool:
    """Whether not every whole number of this size is a float. Times are compared as floats there."""
    return abs(bound) >= 2.0**53


def scores_of(
    live: dict[str, EncodedContent], query: np.ndarray, modality: Modality, row_filter: RowFilter | None
) -> dict[str, float]:
    """The definition of a search: the score of each content that may be answered."""
    return {
        one.content_id: float(
            np.clip((one.embeddings.astype(np.float16).astype(np.float32) @ query[0]).max(), -1, 1)
        )
        for one in live.values()
        if one.modality == modality and (row_filter is None or passes(one, row_filter))
    }


def lower_thresholds(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Draw the thresholds and the costs that decide which way a search takes."""
    least_nodes = int(rng.choice([30, 80]))
    for module in (shared_vectors, inverted_lists):
        monkeypatch.setattr(module, "MIN_NODES", least_nodes)
    for module in (searching, queries, best_rows):
        monkeypatch.setattr(module, "MIN_DEPTH", 4)
    monkeypatch.setattr(queries, "_NODES_MET_OF_HIT", 1)
    monkeypatch.setattr(queries, "_MIN_RANKED", int(rng.choice([1, 32])))
    monkeypatch.setattr(list_ranking, "_SECONDS_OF_TRIAL", float(rng.choice([-1.0, 0.0, 3e-6, 300e-6])))
    copied = float(rng.choice([0.0, 400e-9, 1.0]))
    monkeypatch.setattr(list_ranking, "SECONDS_OF_COPIED_NODE", copied)
    monkeypatch.setattr(flat_vectors, "SECONDS_OF_COPIED_NODE", copied)
    num_settled = int(rng.choice([1, 5, 30]))
    for module in (list_ranking, list_trial):
        monkeypatch.setattr(module, "NUM_SETTLED", num_settled)
    monkeypatch.setattr(stacked_lists, "_MIN_SCANNED", int(rng.choice([8, 5_000])))
    monkeypatch.setattr(stacked_lists, "_NODES_OF_CANDIDATE", int(rng.choice([1, 8])))
    monkeypatch.setattr(RowMasks.__init__, "__defaults__", (int(rng.choice([8, 4096])),))
    monkeypatch.setattr(TimeBlocks.__init__, "__defaults__", (int(rng.choice([5, 4096])),))
    if rng.random() < 0.3:
        forget_now_and_then(monkeypatch, np.random.default_rng(1))
    lower_thresholds_of_few_rows(monkeypatch, rng.spawn(1)[0])
    bounds = [(20_000, 500, 64), (200, 40, 8), (40, 10, 4)][rng.integers(3)]
    monkeypatch.setattr(tail.build_tails, "__defaults__", bounds)


def lower_thresholds_of_few_rows(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(node_rows, "_MIN_TABLED", int(rng.choice([1, 50, 4096])))
    monkeypatch.setattr(scattered_codes, "_BLOCK", int(rng.choice([3, 17, 1024])))
    few_part = int(rng.choice([1, 2, 8, 30]))
    for module in (eligible, segment_view):
        monkeypatch.setattr(module, "FEW_PART", few_part)
    monkeypatch.setattr(row_masks, "_FEW_PART", int(rng.choice([1, 2, 8, 30])))


def forget_now_and_then(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Let caches drop what a search has just kept, as searches of other threads make them do."""
    find = BoundedCache.find
    monkeypatch.setattr(BoundedCache, "find", lambda *args: None if rng.random() < 0.3 else find(*args))


def take_over_with(root: Any, partition: int, rng: np.random.Generator, lanes: InlineLanes) -> ShardWriter:
    merge = MergeSettings(
        merge_factor=int(rng.choice([2, 3])),
        floor_entries=int(rng.choice([16, 200])),
        max_dead_share=float(rng.choice([0.3, 1.0])),
        vectors="sq8" if rng.random() < 0.4 else "fp16",
    )
    changed = {"write_sealed": write_fastest} if rng.random() < 0.3 else {}
    settings = WriterSettings(merge=merge, **changed)
    return take_over(root, partition, settings=settings, lanes=lanes)


def write(root: Path, drawn: Drawn, num_partitions: int) -> None:
    """Commit contents and removals; merge now and then, into segments of several kinds."""
    rng, index, lanes = drawn.rng, create_index(root, num_partitions=num_partitions), InlineLanes()
    windows, num_ids = int(rng.choice([1, 3])), 0
    writers = [take_over_with(index, p, rng, lanes) for p in range(num_partitions)]
    for _ in range(int(rng.integers(4, 10))):
        partition = int(rng.integers(num_partitions))
        if rng.random() < 0.3:
            writers[partition] = take_over_with(index, partition, rng, lanes)
        changes: list[Any] = []
        for _ in range(int(rng.choice([3, 20, 120]))):
            of_shard = [i for i in drawn.live if i.endswith(f"-{partition}")] if rng.random() < 0.2 else []
            if of_shard:
                content_id = str(rng.choice(of_shard))
                if rng.random() < 0.5:
                    del drawn.live[content_id]
                    changes.append(lambda offset, i=content_id: removal(i, offset))
                    continue
            else:
                num_ids += 1
                content_id = f"{rng.integers(1000):03}.{num_ids}-{partition}"
            one = drawn.live[content_id] = drawn.content(content_id, windows)
            changes.append(lambda offset, one=one: replace(one, offset=offset))
        add(writers[partition], changes)
        writers[partition].commit()
        if rng.random() < 0.6:
            lanes.release(is_released=True)
            for _ in range(3):
                writers[partition].maintain()
                lanes.release(is_released=True)


@dataclass
class Asked:
    """One search, and what is known of its answer."""

    searcher: Searcher
    query: np.ndarray
    modality: Modality
    row_filter: RowFilter | None
    expected: dict[str, float]

    def answer(self, k: int, searcher: Searcher | None = None, **ask: Any) -> list[tuple[float, str]]:
        [hits] = (searcher or self.searcher).search(
            self.query, k=k, modality=self.modality, row_filter=self.row_filter, **ask
        )
        return [(-hit.score, hit.content_id) for hit in hits]

    def check(self, answer: list[tuple[float, str]], k: int, *, is_in_order: bool = True) -> None:
        """Every hit passes, once, and has the score of its best window; and there are k while k exist."""
        ids = [content_id for _, content_id in answer]
        assert len(ids) == len(set(ids)), "found twice"
        assert set(ids) <= self.expected.keys(), "must not be answered"
        assert len(ids) == min(k, len(self.expected)), "too few"
        for score, content_id in answer:
            assert -score == pytest.approx(self.expected[content_id], abs=SCORE_ERROR)
        if is_in_order:
            assert answer == sorted(answer)

    def walk(self, page: int, excluded: frozenset[str]) -> list[str]:
        ask = RankingRequest(
            QueryEmbedding(self.query[0], excluded, None),
            self.modality,
            page,
            row_filter=self.row_filter,
            depth=MAX_DEPTH,
        )
        found: list[str] = []
        while True:
            [selected] = find_rankings(self.searcher, [ask])
            found += [hit.content_id for hit in selected.hits]
            if selected.end is None:
                return found
            ask = replace(ask, after=selected.end)


def check_all(asked: Asked, drawn: Drawn) -> None:
    num_all = len(asked.expected)
    for k in (1, 5, 40, num_all + 3):
        asked.check(asked.answer(k), k)
        told = asked.answer(k, asked.searcher.observed_by(Untold()))
        asked.check(told, k)
        if not asked.searcher._sources_of(asked.modality).has_rest:
            assert [i for _, i in told] == [i for _, i in asked.answer(k)]
    whole = asked.answer(num_all + 3, depth=MAX_DEPTH)
    asked.check(whole, num_all, is_in_order=False)
    for k in (1, 3, 4, 5, 17, 60):
        assert asked.answer(k, depth=MAX_DEPTH) == whole[:k]
        assert asked.answer(k, asked.searcher.observed_by(Untold()), depth=MAX_DEPTH) == whole[:k]
    least = float(np.quantile([*asked.expected.values()], 0.7)) if asked.expected else 0.0
    at_least = {i for i, score in asked.expected.items() if score >= least + SCORE_ERROR}
    found = asked.answer(num_all + 3, depth=MAX_DEPTH, min_score=least - SCORE_ERROR)
    assert at_least <= {content_id for _, content_id in found}
    assert len(found) == len({content_id for _, content_id in found})
    excluded = frozenset(drawn.rng.choice([*drawn.live], 4).tolist()) if drawn.live else frozenset()
    for page in (3, 25):
        found_ids = asked.walk(page, excluded)
        assert found_ids == [content_id for _, content_id in whole if content_id not in excluded]


def check_seed(seed: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(seed)
    lower_thresholds(monkeypatch, drawn.rng)
    write(root, drawn, num_partitions=int(drawn.rng.integers(1, 4)))
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    filters: Sequence[RowFilter | None] = [None, *(drawn.row_filter() for _ in range(8))]
    asked_queries = np.concatenate([drawn.query() for _ in range(4)])
    for row_filter in filters:
        for modality in MODALITIES:
            alone = []
            for query in asked_queries:
                expected = scores_of(drawn.live, query[None], modality, row_filter)
                asked = Asked(reader.searcher, query[None], modality, row_filter, expected)
                alone.append(asked.answer(7))
                if len(alone) == 1:
                    check_all(asked, drawn)
            together = reader.searcher.search(asked_queries, k=7, modality=modality, row_filter=row_filter)
            assert [[(-hit.score, hit.content_id) for hit in hits] for hits in together] == alone


@pytest.mark.parametrize("seed", [0, 2, 4, 5, 7, 8, 12, 13])
def test_answers_are_those_of_a_fold(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_seed(seed, tmp_path, monkeypatch)
