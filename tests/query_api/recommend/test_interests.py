"""What a history of uploads shows."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.recommend.diversity import diversify
from query_api.recommend.interests import HALF_LIFE_MS, PastUpload, find_interests, shares

DIMENSION = 64


def uploads_around(centre: int, num: int, *, noise: float = 0.05, age_ms: float = 0.0) -> list[PastUpload]:
    """Uploads near one axis of the space."""
    random = np.random.default_rng((centre, num))
    rows = noise * random.standard_normal((num, DIMENSION))
    rows[:, centre] += 1.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    now = int(10 * HALF_LIFE_MS)
    return [
        PastUpload(f"{centre}-{n}", row.astype(np.float32), now - int(age_ms)) for n, row in enumerate(rows)
    ]


def test_no_history_shows_no_interests() -> None:
    assert find_interests([]) == []


def test_one_upload_is_one_interest() -> None:
    [interest] = find_interests(uploads_around(0, 1))
    assert (interest.medoid.content_id, interest.num_uploads, interest.weight) == ("0-0", 1, 1.0)


@pytest.mark.parametrize("num", [2, 3, 40])
def test_equal_uploads_are_one_interest(num: int) -> None:
    [interest] = find_interests(uploads_around(0, num, noise=0.0))
    assert interest.num_uploads == num


def test_two_different_uploads_are_two_interests() -> None:
    assert len(find_interests([*uploads_around(0, 1), *uploads_around(1, 1)])) == 2


def test_each_group_of_uploads_is_an_interest_with_a_medoid_of_its_own() -> None:
    interests = find_interests([*uploads_around(0, 30), *uploads_around(1, 20), *uploads_around(2, 10)])
    assert [interest.num_uploads for interest in interests] == [30, 20, 10]
    assert [interest.medoid.content_id[0] for interest in interests] == ["0", "1", "2"]
    assert sum(interest.weight for interest in interests) == pytest.approx(1.0)
    assert all(0.5 < interest.radius <= 1.0 for interest in interests)


def test_older_uploads_count_less() -> None:
    interests = find_interests([*uploads_around(0, 10, age_ms=2 * HALF_LIFE_MS), *uploads_around(1, 10)])
    assert [interest.medoid.content_id[0] for interest in interests] == ["1", "0"]
    assert interests[0].weight == pytest.approx(0.8, abs=0.01)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(0, 100))
def test_shares_sum_to_the_results_and_follow_the_weights(weights: list[float], num_results: int) -> None:
    given = shares(weights, num_results)
    exact = [weight / sum(weights) * num_results for weight in weights]
    assert sum(given) == num_results
    assert all(abs(share - wanted) < 1 for share, wanted in zip(given, exact, strict=True))


def test_without_diversity_the_order_is_by_score() -> None:
    embeddings = np.eye(3, dtype=np.float32)
    assert list(diversify([0.2, 0.9, 0.5], embeddings, 0.0)) == [1, 2, 0]


def test_with_diversity_a_copy_comes_behind_something_else() -> None:
    embeddings = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert list(diversify([0.9, 0.9, 0.6], embeddings, 0.5)) == [0, 2, 1]
    assert list(islice(diversify([0.9, 0.9, 0.6], embeddings, 0.0), 2)) == [0, 1]
