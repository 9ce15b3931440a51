"""Sets of centroids: what their file says, what is refused, and which embeddings train them."""

from __future__ import annotations

import io
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from clip_index.errors import DamagedFile
from clip_index.storage.file_digest import digest_of
from clip_index.vectors.calibration import calibrate
from clip_index.vectors.calibration_queries import hold_out, may_train
from clip_index.vectors.centroid_set import (
    CentroidFile,
    CentroidSets,
    build_file,
    parse_file,
    read_file,
    train_centroids,
)
from clip_index.vectors.lists.codebook import CodebookArrays
from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.queries import Around, join_around
from fakes.shards import unit_vectors

EMBEDDINGS = unit_vectors(1, 6_000).astype(np.float16)


@pytest.fixture(scope="module")
def file() -> CentroidFile:
    return build_file(train_centroids(EMBEDDINGS, 200), EMBEDDINGS, EMBEDDINGS[:0])


def saved(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def with_header(text: str) -> bytes:
    """Return an array whose header is this text."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.ones((2, 3), np.float16))
    return buffer.getvalue()


HOSTILE = {
    "huge": with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000000, 16), }\n"),
    "beyond a word": with_header(f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({2**70}, 16), }}\n"),
    "true": with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (True, True), }\n"),
    "open bracket": with_header("["),
    "keys": with_header("{[]: 1}"),
    "zip": zipped(),
    "no zip": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("num_before", [0, 1, 2])
def test_a_hostile_file_is_damaged(data: bytes, num_before: int) -> None:
    before = [saved(unit_vectors(2, 5, 16).astype(np.float16)), FORMER_CODEBOOK][:num_before]
    with pytest.raises(DamagedFile, match=r"set\.npy"):
        parse_file(b"".join(before) + data, "set.npy")


def test_a_set_says_how_near_the_embeddings_lay_at_its_training(file: CentroidFile) -> None:
    assigned = file.centroids.assign(EMBEDDINGS)
    expected = file.centroids.mean_cosines[assigned.lists]
    assert expected.mean() == pytest.approx(assigned.cosines.mean(), abs=1e-3)
    assert np.linalg.norm(file.centroids.centroids, axis=1) == pytest.approx(1, abs=2e-3)


def test_how_near_embeddings_lie_is_told_for_those_that_did_not_train_the_set() -> None:
    training, unseen, later = EMBEDDINGS[:3_000], EMBEDDINGS[3_000:4_000], EMBEDDINGS[4_000:]
    found = build_file(train_centroids(training, 200), training, unseen).centroids
    assigned = found.assign(later)
    expected = found.mean_cosines[assigned.lists]
    assert (1 - assigned.cosines).mean() == pytest.approx((1 - expected).mean(), rel=0.05)


def test_each_embedding_lies_around_its_nearest_centroid(file: CentroidFile) -> None:
    assigned = file.centroids.assign(EMBEDDINGS)
    scores = EMBEDDINGS.astype(np.float32) @ file.centroids.centroids.T
    assert assigned.cosines == pytest.approx(scores.max(axis=1), abs=1e-5)


def test_a_set_is_read_back_as_it_was_written(file: CentroidFile, tmp_path: Path) -> None:
    (tmp_path / "set.npy").write_bytes(file.data)
    found = read_file(tmp_path / "set.npy", file.digest)
    assert (found.data, found.digest) == (file.data, file.digest)
    assert np.array_equal(found.centroids.centroids, file.centroids.centroids)


def test_a_centroid_that_nothing_lies_around_keeps_its_direction() -> None:
    centroids = np.eye(3, 4, dtype=np.float32)
    near = centroids[:2].astype(np.float16)
    found = build_file(centroids, near, near).centroids
    assert found.centroids.tolist() == centroids.tolist()


def test_a_process_has_a_set_once_while_something_uses_it(file: CentroidFile, tmp_path: Path) -> None:
    (tmp_path / "set.npy").write_bytes(file.data)
    opened = []

    def path_of() -> Path:
        opened.append(1)
        return tmp_path / "set.npy"

    sets = CentroidSets()
    first = sets.find_or_open(file.digest, path_of)
    assert sets.find_or_open(file.digest, path_of) is first
    del first
    sets.find_or_open(file.digest, path_of)
    assert len(opened) == 2


def test_each_centroid_is_followed_by_the_nearest_of_those_that_are_left() -> None:
    """So the near lists of a query lie in fewer places of a file."""
    centroids = train_centroids(EMBEDDINGS, 40)
    for number, centroid in enumerate(centroids[:-1]):
        scores = centroids[number + 1 :] @ centroid
        assert scores[0] == pytest.approx(scores.max(), abs=1e-6)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an array",
        saved([1.0]),
        saved(np.zeros((2, 3), np.float16)),
        saved(np.full((2, 3), np.nan, np.float16)),
        saved(np.full((2, 3), np.inf, np.float16)),
        saved(np.ones((2, 3), np.float32)),
        saved(np.ones((0, 3), np.float16)),
        saved(np.ones((1, 2, 3), np.float16)),
        saved(np.array([None])),
        saved(np.ones((2, 3), np.float16))[:-1],
    ],
    ids=["empty", "text", "flat", "zero", "nan", "infinite", "fp32", "none", "deep", "objects", "cut"],
)
def test_a_file_that_holds_no_centroids_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedFile, match=r"set\.npy"):
        parse_file(data, "set.npy")


def test_a_set_has_a_codebook_that_says_nothing_to_earlier_releases(file: CentroidFile) -> None:
    dimension = EMBEDDINGS.shape[1]
    codebook = file.centroids.codebook
    assert codebook is not None
    assert codebook.has_all_components
    assert 3 * dimension // 8 <= codebook.num_codes <= 3 * dimension // 4 + 4
    stream = io.BytesIO(file.data)
    assert np.load(stream).shape == (200, dimension)
    former = np.load(stream)
    assert (former.dtype, former.shape) == (np.float16, (dimension // 2, 16, 2))
    assert not former.any()


FORMER_CODEBOOK = saved(np.ones((8, 16, 2), np.float16))


@pytest.mark.parametrize("codebook", [b"", FORMER_CODEBOOK], ids=["none", "other codes"])
def test_a_set_of_an_earlier_release_has_no_codebook(codebook: bytes) -> None:
    data = saved(unit_vectors(2, 5, 16).astype(np.float16)) + codebook
    assert parse_file(data, "set.npy").centroids.codebook is None


@pytest.mark.parametrize(
    "former",
    [
        b"no array",
        saved(np.ones((8, 16, 2), np.float32)),
        saved(np.ones((4, 16, 2), np.float16)),
        saved(np.ones((8, 16, 4), np.float16)),
        FORMER_CODEBOOK[:-1],
    ],
    ids=["text", "fp32", "short", "wide", "cut"],
)
def test_a_set_with_another_thing_behind_it_is_damaged(former: bytes) -> None:
    data = saved(unit_vectors(2, 5, 16).astype(np.float16))
    with pytest.raises(DamagedFile, match=r"set\.npy"):
        parse_file(data + former, "set.npy")


ARRAYS = CodebookArrays(
    components=np.eye(2, 16, dtype=np.float16),
    inputs=np.array([[0, -1], [1, -1], *np.arange(2, 18).reshape(-1, 2), [-1, -1], [0, -1]], np.int16),
    values=np.ones((12, 16, 2), np.float16),
    losses=np.ones(18, np.float32),
)


def with_inputs(code: int, *inputs: int) -> np.ndarray:
    changed = ARRAYS.inputs.copy()
    changed[code] = inputs
    return changed


def parse_arrays(arrays: CodebookArrays) -> CentroidFile:
    former = saved(unit_vectors(2, 5, 16).astype(np.float16)) + FORMER_CODEBOOK
    return parse_file(former + b"".join(saved(array) for array in astuple(arrays)), "set.npy")


def test_a_codebook_is_read_as_it_is_stored() -> None:
    codebook = parse_arrays(ARRAYS).centroids.codebook
    assert codebook is not None
    for read, written in zip(astuple(codebook.arrays), astuple(ARRAYS), strict=True):
        assert (read.dtype, read.tolist()) == (written.dtype, written.tolist())


@pytest.mark.parametrize(
    "changed",
    [
        {"components": ARRAYS.components.astype(np.float32)},
        {"components": np.eye(2, 8, dtype=np.float16)},
        {"components": np.eye(3, 16, dtype=np.float16)},
        {"components": np.full((2, 16), np.nan, np.float16)},
        {"components": np.float16(1)},
        {"inputs": ARRAYS.inputs.astype(np.int64)},
        {"inputs": with_inputs(2, 18, 3)},
        {"inputs": with_inputs(2, -2, 3)},
        {"inputs": with_inputs(2, 1, 3)},
        {"inputs": with_inputs(11, 1, -1)},
        {"inputs": np.tile(ARRAYS.inputs[:6], (2, 1))[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 6]]},
        {"inputs": np.full((12, 2), [0, -1], np.int16)},
        {"inputs": np.int16(0)},
        {"inputs": ARRAYS.inputs[:11], "values": ARRAYS.values[:11]},
        {"inputs": ARRAYS.inputs[:0], "values": ARRAYS.values[:0]},
        {"values": ARRAYS.values[:8]},
        {"values": np.full((12, 16, 2), np.inf, np.float16)},
        {"losses": ARRAYS.losses[:16]},
        {"losses": ARRAYS.losses[:4]},
        {"losses": -ARRAYS.losses},
        {"losses": np.full(18, np.nan, np.float32)},
        {"losses": np.array(1, np.float32)},
    ],
)
def test_arrays_that_are_no_codebook_are_damaged(changed: dict[str, np.ndarray]) -> None:
    with pytest.raises(DamagedFile, match=r"set\.npy.*codebook"):
        parse_arrays(replace(ARRAYS, **changed))


def test_a_codebook_whose_last_array_is_missing_is_damaged() -> None:
    data = parse_arrays(ARRAYS).data
    with pytest.raises(DamagedFile, match=r"set\.npy"):
        parse_file(data[: -len(saved(ARRAYS.losses))], "set.npy")


def with_spread(spread: object) -> bytes:
    return parse_arrays(ARRAYS).data + saved(spread)


def test_a_set_has_a_spread_behind_its_codebook(file: CentroidFile) -> None:
    spread = file.centroids.spread
    assert spread is not None
    assert file.data.endswith(saved(spread.stored))
    stored = np.arange(256).reshape(16, 16).astype(np.float16)
    found = parse_file(with_spread(stored), "set.npy").centroids.spread
    assert found is not None
    assert found.stored.tolist() == stored.tolist()


def test_a_set_of_an_earlier_release_has_no_spread() -> None:
    assert parse_arrays(ARRAYS).centroids.spread is None


@pytest.mark.parametrize(
    "spread",
    [
        np.ones((16, 16), np.float32),
        np.ones((16, 8), np.float16),
        np.ones(256, np.float16),
        np.full((16, 16), np.nan, np.float16),
    ],
    ids=["fp32", "narrow", "flat", "nan"],
)
def test_an_array_that_is_no_spread_is_damaged(spread: np.ndarray) -> None:
    with pytest.raises(DamagedFile, match=r"set\.npy.*spread"):
        parse_file(with_spread(spread), "set.npy")


def test_a_spread_that_is_cut_is_damaged() -> None:
    with pytest.raises(DamagedFile, match=r"set\.npy"):
        parse_file(with_spread(np.ones((16, 16), np.float16))[:-1], "set.npy")


def test_embeddings_of_another_dimension_have_no_codebook() -> None:
    rows = unit_vectors(3, 50, 12).astype(np.float16)
    assert build_file(train_centroids(rows, 4), rows, rows[:0]).centroids.codebook is None


def test_a_file_with_another_digest_is_damaged(file: CentroidFile, tmp_path: Path) -> None:
    (tmp_path / "set.npy").write_bytes(file.data[:-1] + b"\x01")
    with pytest.raises(DamagedFile, match="expected"):
        read_file(tmp_path / "set.npy", digest_of(file.data))


def test_a_shard_of_several_scans_less_than_one_alone_for_the_ten_best_of_all(file: CentroidFile) -> None:
    around = file.centroids
    lists = around.assign(EMBEDDINGS).lists
    gaps = [calibrate(EMBEDDINGS, around.centroids, lists, num_shards=n).gap for n in (1, 4, 10_000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[2] > 0


def test_gaps_that_differ_by_chance_serve_by_their_mean_and_a_much_greater_one_nearly_as_it_is(
    file: CentroidFile,
) -> None:
    def joined_gap(*gaps: float) -> float:
        parts = [Around(file.centroids.index, 100, Effort(gap, 8), 1.0 + gap) for gap in gaps]
        found = join_around(parts)
        assert (found.num_nodes, found.nodes_per_row) == (100 * len(gaps), 1.0 + max(gaps))
        return found.effort.gap

    assert joined_gap(0.1) == pytest.approx(0.1)
    assert joined_gap(0.100, 0.104) == pytest.approx(0.102)
    assert joined_gap(0.02, 0.1) == pytest.approx(0.095)


def test_shares_left_out_serve_by_their_geometric_mean_and_a_much_smaller_one_nearly_as_it_is(
    file: CentroidFile,
) -> None:
    def joined(*shares: float) -> tuple[float, float]:
        efforts = [Effort(0.1, 8, left_out=share, least_left_out=share / 2, most_lists=9) for share in shares]
        found = join_around([Around(file.centroids.index, 100, effort) for effort in efforts]).effort
        assert found.most_lists == 9
        return found.left_out, found.least_left_out

    assert joined(0.01) == pytest.approx((0.01, 0.005))
    assert joined(0.01, 0.014) == pytest.approx((0.01183, 0.005916), rel=1e-3)
    assert joined(0.001, 0.016) == pytest.approx((0.0015, 0.00075))
    assert joined(0, 0.016) == (0, 0)  # one of them was not measured


@pytest.mark.parametrize("num_later", [4_000, 6_000])
def test_what_calibration_asks_with_has_trained_no_set_of_any_merge(num_later: int) -> None:
    earlier, later = EMBEDDINGS[:4_000], EMBEDDINGS[-num_later:]
    asked = {row.tobytes() for row in later[hold_out(later)]}
    trained = {row.tobytes() for row in earlier[may_train(earlier)]}
    assert len(asked) == min(512, num_later // 12 + 1)
    assert not asked & trained
    assert len(trained) > 0.8 * len(earlier)


@pytest.mark.parametrize("num_rows", [1, 3, 20])
def test_few_embeddings_make_a_codebook_that_gives_them_back(
    num_rows: int, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = unit_vectors(4, num_rows).astype(np.float16)
    around = build_file(train_centroids(rows, 1), rows, rows[:0]).centroids
    assert around.codebook is not None
    differences = rows.astype(np.float32) - around.centroids
    lost = around.codebook.decode(differences) - differences
    assert np.linalg.norm(lost, axis=1).mean() < (0.4 if num_rows > 16 else 1e-2)
    assert "WARNING" not in capfd.readouterr().err
