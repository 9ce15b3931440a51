"""Codes tell most of a score in few bits, and the codebook says by how much a query's scores are off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_index.vectors.lists.codebook import Codebook
from clip_index.vectors.lists.codebook_training import _count_components, _train, train_codebook
from fakes.shards import unit_vectors

DIMENSION, NUM = 256, 3_000


def spectrum(seed: int, num: int = NUM) -> np.ndarray:
    """Return unit vectors whose variances fall as 1/n, around a mean, (num, 256)."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((num, DIMENSION)) / np.sqrt(np.arange(1, DIMENSION + 1))
    rows[:, -1] = 0
    rows = rows @ rotation() + 2 * rotation()[-1]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def rotation() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(9).standard_normal((DIMENSION, DIMENSION)))[0]


def equal_variances(seed: int, num: int = NUM) -> np.ndarray:
    return unit_vectors(seed, num, DIMENSION)


def around_mean(embeddings: np.ndarray) -> np.ndarray:
    return embeddings - embeddings.mean(axis=0)


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return train_codebook(spectrum(1), around_mean(spectrum(1)))


def test_components_have_codes_of_their_own_where_they_weigh(codebook: Codebook) -> None:
    alike = train_codebook(equal_variances(1), around_mean(equal_variances(1)))
    assert len(alike.arrays.components) == 0
    assert alike.num_codes == DIMENSION // 2
    assert len(codebook.arrays.components) > 0
    assert codebook.num_codes > DIMENSION // 2
    assert codebook.code_bytes == codebook.num_codes // 2


def test_every_direction_has_a_code(codebook: Codebook) -> None:
    """What is common to a rare kind of contents may lie anywhere."""
    inputs = codebook.arrays.inputs
    used = np.bincount(inputs[inputs >= 0], minlength=len(codebook.arrays.losses))
    assert used.min() == 1
    assert used[0] == 2


def test_components_of_their_own_leave_smaller_errors(codebook: Codebook) -> None:
    differences, queries = around_mean(spectrum(2)), spectrum(3, 50)
    without = _train(np.empty((0, DIMENSION), np.float16), around_mean(spectrum(1)), 0)
    errors = [queries @ (differences - some.decode(differences)).T for some in (codebook, without)]
    assert errors[0].std() < 0.75 * errors[1].std()


def test_codes_tell_most_of_what_a_rare_kind_has_in_common(codebook: Codebook) -> None:
    """It differs from the others in a direction of its own, in which nothing else varies much."""
    own = unit_vectors(8, 1, DIMENSION)
    kind = (0.8 * spectrum(4, 50) + 0.6 * own).astype(np.float32)
    kind /= np.linalg.norm(kind, axis=1, keepdims=True)
    differences = kind - spectrum(1).mean(axis=0)
    errors = kind @ (differences - codebook.decode(differences)).T
    assert errors.mean() < 0.25 * 0.36  # of what the kind has in common


def test_losses_are_those_of_other_embeddings_of_the_kind(codebook: Codebook) -> None:
    found = codebook.lost_along(around_mean(spectrum(2)))
    assert codebook.arrays.losses.sum() == pytest.approx(found.sum(), rel=0.2)
    assert np.corrcoef(codebook.arrays.losses, found)[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["alike", "far", "other modality"])
def test_deviations_are_those_of_the_errors_of_scores(codebook: Codebook, kind: str) -> None:
    """The mean of the other modality lies in a direction in which these embeddings do not vary."""
    queries = {
        "alike": spectrum(3, 50),
        "far": unit_vectors(4, 50, DIMENSION),
        "other modality": (spectrum(5, 50) + rotation()[-1]).astype(np.float32),
    }[kind]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    differences = around_mean(spectrum(2))
    errors = queries @ (differences - codebook.decode(differences)).T
    expected = np.sqrt(np.square(errors).mean(axis=1))
    found = codebook.code_queries(queries).deviations
    assert (found >= 0.8 * expected).all()
    assert np.median(found / expected) < 1.4


def test_scores_by_inputs_are_those_of_what_codes_give_back(codebook: Codebook) -> None:
    queries, differences = spectrum(3, 5), around_mean(spectrum(2, 20))
    coded = codebook.code_queries(queries).inputs
    values = codebook.arrays.values.astype(np.float32)
    exact = codebook.inputs_of(differences).reshape(len(differences), -1, 1, 2)
    nearest = np.square(exact - values).sum(axis=3).argmin(axis=2)
    given_back = values[np.arange(len(values)), nearest].reshape(len(differences), -1)
    scores = queries @ codebook.decode(differences).T
    assert coded @ given_back.T == pytest.approx(scores, abs=1e-5)


def test_equal_embeddings_are_given_back() -> None:
    embeddings = np.repeat(unit_vectors(6, 1, DIMENSION), 10, axis=0)
    codebook = train_codebook(embeddings, 0.1 * embeddings)
    assert codebook.arrays.fit(DIMENSION)
    assert codebook.decode(0.1 * embeddings) == pytest.approx(0.1 * embeddings, abs=1e-3)
    assert np.isfinite(codebook.code_queries(embeddings[:1]).deviations).all()


@pytest.mark.parametrize("dimension", [8, 16, 24, 40, 96, 200])
def test_embeddings_of_any_allowed_dimension_have_a_codebook(dimension: int) -> None:
    embeddings = unit_vectors(7, 300, dimension)
    codebook = train_codebook(embeddings, around_mean(embeddings))
    assert codebook.arrays.fit(dimension)
    assert codebook.num_codes % 4 == 0


@given(
    st.lists(st.floats(0, 1e3, width=32), min_size=16, max_size=64),
    st.integers(1, 16),
)
def test_components_use_the_codes_that_there_are(weights: list[float], num_codes: int) -> None:
    num_fine, num_components = _count_components(np.sort(np.array(weights))[::-1], num_codes)
    assert num_fine + num_components in {0, num_codes}
    assert num_fine <= num_components
