"""Codes tell most of a score in few bits, and the codebook says by how much a query's scores are off."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from clip_index.vectors.lists.codebook import Codebook, CodebookArrays
from clip_index.vectors.lists.codebook_training import train_codebook
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


def pairs_of_dimensions(differences: np.ndarray) -> faiss.ProductQuantizer:
    quantiser = faiss.ProductQuantizer(DIMENSION, DIMENSION // 2, 4)
    quantiser.train(differences)
    return quantiser


def test_components_that_weigh_much_have_two_codes_and_others_share_one() -> None:
    steep = np.random.default_rng(1).standard_normal((NUM, DIMENSION)) / np.arange(1, DIMENSION + 1)
    steep = (steep / np.linalg.norm(steep, axis=1, keepdims=True)).astype(np.float32)
    codebook = train_codebook(steep, around_mean(steep))
    assert codebook.num_codes == 3 * DIMENSION // 8
    assert codebook.code_bytes == codebook.num_codes // 2
    assert codebook.arrays.num_fine > 2
    assert set((codebook.arrays.inputs >= 0).sum(axis=1).tolist()) >= {1, 2, 4}


def test_components_that_weigh_alike_have_more_codes() -> None:
    alike = train_codebook(equal_variances(1), around_mean(equal_variances(1)))
    assert DIMENSION // 2 <= alike.num_codes <= 3 * DIMENSION // 4
    assert (alike.arrays.inputs >= 0).sum(axis=1).max() == 2


def test_every_direction_has_a_code(codebook: Codebook) -> None:
    """What is common to a rare kind of contents may lie anywhere."""
    inputs = codebook.arrays.inputs
    used = np.bincount(inputs[inputs >= 0], minlength=DIMENSION)
    assert codebook.arrays.components.shape == (DIMENSION, DIMENSION)
    assert len(codebook.arrays.losses) == DIMENSION
    assert set(used.tolist()) == {1, 2}
    assert used[0] == 2


def test_fewer_codes_leave_smaller_errors_than_those_of_pairs_of_dimensions(codebook: Codebook) -> None:
    differences, queries = around_mean(spectrum(2)), spectrum(3, 50)
    pairs = pairs_of_dimensions(around_mean(spectrum(1)))
    by_pairs = pairs.decode(pairs.compute_codes(differences))
    errors = [queries @ (differences - decoded).T for decoded in (codebook.decode(differences), by_pairs)]
    assert errors[0].std() < 0.6 * errors[1].std()


def test_codes_tell_most_of_what_a_rare_kind_has_in_common(codebook: Codebook) -> None:
    """It differs from the others in a direction of its own, in which nothing else varies much."""
    own = unit_vectors(8, 1, DIMENSION)
    kind = (0.8 * spectrum(4, 50) + 0.6 * own).astype(np.float32)
    kind /= np.linalg.norm(kind, axis=1, keepdims=True)
    differences = kind - spectrum(1).mean(axis=0)
    errors = kind @ (differences - codebook.decode(differences)).T
    assert errors.mean() < 0.35 * 0.36  # of what the kind has in common


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
    found = codebook.code_queries(codebook.along(queries)).deviations
    assert (found >= 0.8 * expected).all()
    assert np.median(found / expected) < 1.4


def test_scores_by_inputs_are_those_of_what_codes_give_back(codebook: Codebook) -> None:
    assert_scores_by_inputs(codebook)


def assert_scores_by_inputs(codebook: Codebook) -> None:
    queries, differences = spectrum(3, 5), around_mean(spectrum(2, 20))
    coded = codebook.code_queries(codebook.along(queries)).inputs
    values = codebook.arrays.values.astype(np.float32)
    exact = codebook.inputs_of(differences).reshape(len(differences), len(values), 1, -1)
    nearest = np.square(exact - values).sum(axis=3).argmin(axis=2)
    given_back = values[np.arange(len(values)), nearest].reshape(len(differences), -1)
    scores = queries @ codebook.decode(differences).T
    assert coded @ given_back.T == pytest.approx(scores, abs=1e-5)


def test_a_query_along_all_directions_does_not_depend_on_others(codebook: Codebook) -> None:
    queries = spectrum(3, 5)
    along = codebook.along(queries)
    assert along == pytest.approx(queries @ codebook.arrays.components.T.astype(np.float32), abs=1e-6)
    alone = np.concatenate([codebook.along(query[None]) for query in queries])
    assert np.array_equal(alone, along)


@pytest.fixture(scope="module", params=[8, DIMENSION])
def former(request: pytest.FixtureRequest) -> Codebook:
    """A codebook of earlier releases: of a few components, and of pairs of dimensions of what is left."""
    num: int = request.param
    differences = around_mean(spectrum(1))
    components = np.linalg.eigh(differences.T @ differences)[1].T[: -num - 1 : -1].astype(np.float16)
    of_components = np.full((num, 2), -1, np.int16)
    of_components[:, 0] = np.arange(num)
    inputs = np.concatenate([of_components, num + np.arange(DIMENSION, dtype=np.int16).reshape(-1, 2)])
    losses = np.zeros(num + DIMENSION, np.float32)
    random = np.random.default_rng(1)
    values = 0.05 * random.standard_normal((len(inputs), 16, 2)).astype(np.float16)
    arrays = CodebookArrays(components, inputs, values, losses)
    assert arrays.fit(DIMENSION)
    return Codebook(arrays)


def test_codebooks_of_earlier_releases_are_read(former: Codebook) -> None:
    assert not former.has_all_components
    assert_scores_by_inputs(former)
    queries = spectrum(3, 3)
    assert former.along(queries).shape == (3, len(former.arrays.components) + DIMENSION)


def test_equal_embeddings_are_given_back() -> None:
    embeddings = np.repeat(unit_vectors(6, 1, DIMENSION), 10, axis=0)
    codebook = train_codebook(embeddings, 0.1 * embeddings)
    assert codebook.arrays.fit(DIMENSION)
    assert codebook.decode(0.1 * embeddings) == pytest.approx(0.1 * embeddings, abs=1e-3)
    assert np.isfinite(codebook.code_queries(codebook.along(embeddings[:1])).deviations).all()


@pytest.mark.parametrize("dimension", [8, 16, 24, 40, 96, 200])
def test_embeddings_of_any_allowed_dimension_have_a_codebook(dimension: int) -> None:
    embeddings = unit_vectors(7, 300, dimension)
    codebook = train_codebook(embeddings, around_mean(embeddings))
    assert codebook.arrays.fit(dimension)
    assert codebook.num_codes % 4 == 0
