"""Under a filter, files around the same centroids find out together which lists are near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from clip_index.vectors.calibration import Effort
from clip_index.vectors.centroid_set import CentroidSet, train_centroids
from clip_index.vectors.lists import list_ranking
from clip_index.vectors.lists.inverted_lists import InvertedLists, add_listed, build_lists
from clip_index.vectors.lists.joined_trial import try_together
from clip_index.vectors.lists.list_members import listed
from clip_index.vectors.queries import Queries, Reach, join_around
from clip_index.vectors.vectors import NodeSelection

DIMENSION, NUM_FILES, ROWS_OF_FILE, NUM_CLUSTERS, NUM_LISTS, K = 32, 4, 6_000, 24, 300, 10


def unit(rows: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return normalised


@dataclass
class Files:
    """Clustered rows in several files around the same centroids, and queries from the clusters."""

    rows: np.ndarray
    files: list[InvertedLists]
    queries: np.ndarray

    def selections(self, is_row: np.ndarray) -> list[NodeSelection]:
        parts = np.split(is_row, NUM_FILES)
        return [file.select(part) for file, part in zip(self.files, parts, strict=True)]

    def tried(self, query: np.ndarray, selections: list[NodeSelection], k: int = K) -> Queries:
        around = join_around([file.around for file in self.files])
        queries = Queries(query, around={id(self.files[0].centroids): around})
        members = [(file, listed(one)) for file, one in zip(self.files, selections, strict=True)]
        try_together(queries, k, around, members)
        return queries

    def num_near(self, query: np.ndarray, is_row: np.ndarray) -> int:
        selections = self.selections(is_row)
        counts = self.tried(query[None], selections).known_counts(self.files[0]._ranking)
        assert counts is not None
        return int(counts[0])

    def recall(self, query: np.ndarray, is_row: np.ndarray) -> float:
        selections = self.selections(is_row)
        queries = self.tried(query[None], selections)
        members = zip(self.files, selections, strict=True)
        scores = np.concatenate([file.search(queries, K, one)[0][0] for file, one in members])
        exact = np.sort(np.where(is_row, self.rows @ query, -2))[-K:]
        return float((np.sort(scores)[-K:] >= exact[0] - 1e-3).mean())


@pytest.fixture(autouse=True)
def no_selection_is_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small files all selected nodes would be scanned."""
    monkeypatch.setattr(list_ranking, "_SECONDS_OF_TRIAL", -1.0)


@pytest.fixture(scope="module")
def files() -> Files:
    rng = np.random.default_rng(5)
    clusters = unit(rng.standard_normal((NUM_CLUSTERS, DIMENSION)))

    def draw(num: int) -> np.ndarray:
        noise = 0.6 * rng.standard_normal((num, DIMENSION)) / np.sqrt(DIMENSION)
        return unit(clusters[rng.integers(NUM_CLUSTERS, size=num)] + noise)

    rows = draw(NUM_FILES * ROWS_OF_FILE).astype(np.float16)
    own = CentroidSet.of(train_centroids(rows, NUM_LISTS))
    parts = []
    for part in np.split(rows, NUM_FILES):
        index = build_lists(own.index)
        add_listed(index, part, own.lists_of(part))
        parts.append(InvertedLists(index, own.index, Effort(0.03, 4), shared=own))
    return Files(rows.astype(np.float32), parts, draw(20))


def test_a_filter_that_does_not_depend_on_the_query_scans_few_lists(files: Files) -> None:
    is_row = np.random.default_rng(1).random(len(files.rows)) < 0.2
    assert np.median([files.num_near(query, is_row) for query in files.queries]) <= NUM_LISTS / 2
    assert np.mean([files.recall(query, is_row) for query in files.queries]) >= 0.99


def test_files_that_are_tried_together_scan_less_than_each_by_itself(files: Files) -> None:
    is_row = np.random.default_rng(1).random(len(files.rows)) < 0.2
    selected, file = listed(files.selections(is_row)[0]), files.files[0]
    together = [files.num_near(query, is_row) for query in files.queries]
    alone = [
        int(file._ranking.rank(Queries(query[None]), selected, file.scan_selected)[2][0])
        for query in files.queries
    ]
    assert np.mean(together) <= 0.8 * np.mean(alone)


@pytest.mark.parametrize("keep", [0.2, 0.3, 0.45, 0.7])
def test_the_best_is_found_where_what_lies_nearest_is_left_out(files: Files, keep: float) -> None:
    found = []
    for query in files.queries:
        scores = files.rows @ query
        found.append(files.recall(query, scores <= np.quantile(scores, keep)))
    assert np.mean(found) >= 0.99


def test_what_was_found_on_trial_is_what_a_scan_of_the_near_lists_finds(files: Files) -> None:
    is_row = np.random.default_rng(2).random(len(files.rows)) < 0.25
    selections = files.selections(is_row)
    for query in files.queries[:5]:
        kept, scanned = (files.tried(query[None], selections, k) for k in (K, 1))
        for file, one in zip(files.files, selections, strict=True):
            expected = file.search(scanned, K, one)
            for of_kept, of_scan in zip(file.search(kept, K, one), expected, strict=True):
                assert np.array_equal(of_kept, of_scan)


def test_near_and_rest_are_all_that_a_filter_selects(files: Files) -> None:
    is_row = np.random.default_rng(3).random(len(files.rows)) < 0.3
    selections, parts = files.selections(is_row), np.split(is_row, NUM_FILES)
    for file, one, part in zip(files.files, selections, parts, strict=True):
        queries = files.tried(files.queries[:1], selections)
        near, rest = (file.search(queries, len(part), one, r)[1][0] for r in (Reach.NEAR, Reach.REST))
        met = np.concatenate([near[near >= 0], rest[rest >= 0]])
        assert np.array_equal(np.sort(met), np.flatnonzero(part))


def test_queries_that_are_tried_together_are_answered_as_alone(files: Files) -> None:
    is_row = np.random.default_rng(4).random(len(files.rows)) < 0.2
    selections = files.selections(is_row)
    together = files.tried(files.queries, selections)
    found = files.files[0].search(together, K, selections[0])
    for number, query in enumerate(files.queries):
        alone = files.files[0].search(files.tried(query[None], selections), K, selections[0])
        assert np.array_equal(found[1][number], alone[1][0])


def test_what_is_known_of_lists_is_not_taken_for_others_in_their_memory(files: Files) -> None:
    queries = Queries(files.queries)
    queries.know_counts(object(), np.array([3]))
    assert all(queries.known_counts(object()) is None for _ in range(100))


def test_a_selection_that_was_built_anew_is_searched_in_the_lists_that_were_tried(files: Files) -> None:
    is_row = np.random.default_rng(6).random(len(files.rows)) < 0.25
    selections, parts = files.selections(is_row), np.split(is_row, NUM_FILES)
    for query in files.queries[:5]:
        queries = files.tried(query[None], selections)
        for file, one, part in zip(files.files, selections, parts, strict=True):
            known, anew = (file.search(queries, len(part), o)[1] for o in (one, file.select(part)))
            assert np.array_equal(known, anew)


def test_scans_are_kept_for_one_query_and_no_wider_than_a_file(files: Files) -> None:
    selections = files.selections(np.random.default_rng(7).random(len(files.rows)) < 0.2)
    rankings = [file._ranking for file in files.files]
    together = files.tried(files.queries[:2], selections, 10 * ROWS_OF_FILE)
    assert [together.kept_scans(one) for one in rankings] == [None] * NUM_FILES
    alone = files.tried(files.queries[:1], selections, 10 * ROWS_OF_FILE)
    widths = {scores.shape[1] for one in rankings for scores, _ in alone.kept_scans(one)._parts}
    assert widths == {ROWS_OF_FILE}
