"""Codes beside lists are FAISS's, are scanned where they are mapped, and never change what is found."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from clip_index.errors import DamagedFile
from clip_index.storage.mapped_part import map_file
from clip_index.vectors.calibration import calibrate
from clip_index.vectors.centroid_set import CentroidSet, build_file, train_centroids
from clip_index.vectors.lists import scan_codes, stacked_lists
from clip_index.vectors.lists.inverted_lists import InvertedLists, add_listed, build_lists
from clip_index.vectors.lists.scan_codes import ListCodes, ScanCodes, StackedCodes, should_write
from clip_index.vectors.lists.search_parameters import SearchParameters
from clip_index.vectors.lists.stacked_lists import StackedLists
from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.queries import Queries
from fakes.shards import unit_vectors

DIMENSION, NUM_LISTS, NUM_NODES, NUM_PROBED = 32, 40, 3_000, 10
EMBEDDINGS = unit_vectors(1, NUM_NODES, DIMENSION).astype(np.float16)
OTHERS = unit_vectors(2, NUM_NODES, DIMENSION).astype(np.float16)
FEW = unit_vectors(4, 500, DIMENSION).astype(np.float16)
QUERIES = unit_vectors(3, 20, DIMENSION)


@pytest.fixture(scope="module")
def around() -> CentroidSet:
    return build_file(train_centroids(EMBEDDINGS, NUM_LISTS), EMBEDDINGS, EMBEDDINGS[:0]).centroids


def written(path: Path, around: CentroidSet, embeddings: np.ndarray, lists: np.ndarray) -> ScanCodes:
    assert around.codebook is not None
    with path.open("wb") as file:
        ListCodes(embeddings, lists, around.centroids, around.codebook).write(file)
    return ScanCodes(map_file(path), np.bincount(lists, minlength=NUM_LISTS), around.codebook)


@pytest.mark.parametrize("encoded_at_once", [1, 100, 16_384])
def test_each_code_is_the_nearest_value_where_faiss_looks_for_it(
    tmp_path: Path, around: CentroidSet, encoded_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_codes, "_ENCODED", encoded_at_once)
    lists = around.assign(EMBEDDINGS).lists
    codes = written(tmp_path / "codes", around, EMBEDDINGS, lists)
    assert around.codebook is not None
    inputs = around.codebook.inputs_of(EMBEDDINGS.astype(np.float32) - around.centroids[lists])
    of_codes = inputs.reshape(NUM_NODES, -1, 1, 2)
    values = around.codebook.arrays.values.astype(np.float32)
    nearest = np.square(of_codes - values).sum(axis=3).argmin(axis=2)
    scan = faiss.IndexPQFastScan(codes.codebook.num_inputs, codes.codebook.num_codes, 4)
    packer = scan.get_CodePacker()
    for number in range(NUM_LISTS):
        begin = codes.stored_lists.get_codes(number)
        members = nearest[lists == number]
        num_bytes = -(-len(members) // 32) * packer.block_size
        blocks = faiss.rev_swig_ptr(begin, num_bytes).reshape(-1, packer.block_size)
        read = [packer.unpack_1(blocks, position) for position in range(len(members))]
        flat = np.array(read).reshape(len(members), -1)
        assert (np.stack([flat & 15, flat >> 4], axis=2).reshape(members.shape) == members).all()


def test_a_list_of_many_nodes_is_encoded_in_parts(
    tmp_path: Path, around: CentroidSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As float32 a list of 100,000 nodes would take 200 MB, several times."""
    lists = np.full(NUM_NODES, 7)
    written(tmp_path / "at once", around, EMBEDDINGS, lists)
    encoded = []
    encode = scan_codes._Encoder.encode
    monkeypatch.setattr(
        scan_codes._Encoder, "encode", lambda self, some: encoded.append(len(some)) or encode(self, some)
    )
    monkeypatch.setattr(scan_codes, "_ENCODED", 256)
    written(tmp_path / "in parts", around, EMBEDDINGS, lists)
    assert max(encoded) == 256
    assert (tmp_path / "in parts").read_bytes() == (tmp_path / "at once").read_bytes()


def test_a_scan_finds_the_best_by_codes_in_the_lists_of_every_file(
    tmp_path: Path, around: CentroidSet
) -> None:
    files = {7: EMBEDDINGS, 3: OTHERS}
    lists = {number: around.assign(embeddings).lists for number, embeddings in files.items()}
    codes = [
        (number, written(tmp_path / f"codes{number}", around, embeddings, lists[number]))
        for number, embeddings in files.items()
    ]
    assert around.codebook is not None
    by_codes = {}
    for number, embeddings in files.items():
        of_nodes = around.centroids[lists[number]]
        by_codes[number] = of_nodes + around.codebook.decode(embeddings.astype(np.float32) - of_nodes)
    stack = StackedCodes(codes)
    for query in QUERIES[:, None]:
        scores = (query @ around.centroids.T)[0]
        probed = np.sort(np.argsort(-scores)[:NUM_PROBED])
        parameters = SearchParameters().of(2 * len(probed))
        found = stack.scan(stack.code_query(Queries(query)), 50, probed, scores[probed], parameters)
        assert (np.diff(found.scores) <= 0).all()
        expected = np.concatenate(
            [by_codes[number][np.isin(lists[number], probed)] @ query[0] for number in files]
        )
        assert found.scores == pytest.approx(np.sort(expected)[::-1][:50], abs=1e-2)
        for score, number, of_list, position in zip(found.scores, *stack.find(found.ids), strict=True):
            [members] = np.nonzero(lists[number] == of_list)
            assert score == pytest.approx(by_codes[number][members[position]] @ query[0], abs=1.5e-2)
        of_lists = [np.bincount(one, minlength=NUM_LISTS)[probed].sum() for one in lists.values()]
        assert stack.count(probed) == sum(of_lists)


def test_codes_that_do_not_fit_their_lists_are_damaged(tmp_path: Path, around: CentroidSet) -> None:
    lists = around.assign(EMBEDDINGS).lists
    written(tmp_path / "codes", around, EMBEDDINGS, lists)
    longer = np.bincount(lists, minlength=NUM_LISTS) + 32
    assert around.codebook is not None
    with pytest.raises(DamagedFile, match="codes"):
        ScanCodes(map_file(tmp_path / "codes"), longer, around.codebook)


def test_codes_are_scanned_after_their_file_was_collected(tmp_path: Path, around: CentroidSet) -> None:
    """A searcher may first search a modality long after its segments were opened."""
    lists = around.assign(EMBEDDINGS).lists
    codes = written(tmp_path / "codes", around, EMBEDDINGS, lists)
    (tmp_path / "codes").unlink()
    probed = np.unique(lists)
    scores = (QUERIES[:1] @ around.centroids.T)[0, probed]
    stack = StackedCodes([(0, codes)])
    parameters = SearchParameters().of(len(probed))
    found = stack.scan(stack.code_query(Queries(QUERIES[:1])), 10, probed, scores, parameters)
    assert len(found.scores) == 10


def test_codes_whose_file_is_collected_before_they_are_open_are_not_damaged(
    tmp_path: Path, around: CentroidSet
) -> None:
    lists = around.assign(EMBEDDINGS).lists
    written(tmp_path / "codes", around, EMBEDDINGS, lists)
    part = map_file(tmp_path / "codes")
    (tmp_path / "codes").unlink()
    assert around.codebook is not None
    with pytest.raises(FileNotFoundError):
        ScanCodes(part, np.bincount(lists, minlength=NUM_LISTS), around.codebook)


@pytest.mark.parametrize(("nodes_of_list", "are_worth_it"), [(2, False), (10, False), (11, True), (40, True)])
def test_short_lists_have_no_codes(nodes_of_list: int, *, are_worth_it: bool) -> None:
    """The codes of 4,000 nodes in 2,000 lists would take twice the bytes of the embeddings."""
    assert should_write(np.repeat(np.arange(100), nodes_of_list), 100) == are_worth_it


@pytest.mark.parametrize("num_lists", [1, 1 << 20])
def test_ids_have_room_for_usual_lists(num_lists: int) -> None:
    assert should_write(np.zeros(1_000, np.int64), num_lists)


def test_ids_have_no_room_for_lists_beyond_a_million() -> None:
    assert not should_write(np.zeros(10, np.int64), (1 << 20) + 1)
    assert not should_write(np.zeros(1 << 20, np.int64), 1)


def too_low(around: CentroidSet, embeddings: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Return by how many deviations the score by its code of each query with each node is too low."""
    assert around.codebook is not None
    differences = embeddings.astype(np.float32) - around.centroids[lists]
    errors = QUERIES @ (differences - around.codebook.decode(differences)).T
    return errors / around.codebook.code_queries(around.codebook.along(QUERIES)).deviations[:, None]


def test_scores_by_codes_are_off_by_no_more_than_was_measured(around: CentroidSet) -> None:
    lists = around.assign(EMBEDDINGS).lists
    effort = calibrate(EMBEDDINGS, around.centroids, lists, others=OTHERS, codebook=around.codebook)
    errors = too_low(around, EMBEDDINGS, lists)
    assert (errors > effort.scan_deviations).mean() < 1e-3
    assert 0.7 < errors.std() < 1.3
    assert 3 < effort.scan_deviations < 8
    assert 10 <= effort.scan_candidates <= NUM_NODES


def test_scores_of_loose_lists_are_off_by_no_more_where_most_lists_are_tight() -> None:
    """The error is that of scores as they are, and not of a normal distribution over all of them."""
    noise = 0.02 * unit_vectors(5, NUM_NODES, DIMENSION)
    tight = unit_vectors(6, 4, DIMENSION)[np.arange(NUM_NODES) % 4] + noise
    tight /= np.linalg.norm(tight, axis=1, keepdims=True)
    embeddings = np.concatenate([tight, EMBEDDINGS[:600]]).astype(np.float16)
    around = build_file(train_centroids(embeddings, NUM_LISTS), embeddings, embeddings[:0]).centroids
    lists = around.assign(embeddings).lists
    effort = calibrate(embeddings, around.centroids, lists, codebook=around.codebook)
    loose = slice(NUM_NODES, None)
    assert (too_low(around, embeddings[loose], lists[loose]) > effort.scan_deviations).mean() < 1e-3


class Files:
    """Lists with codes and lists without, around one set."""

    def __init__(self, folder: Path, around: CentroidSet) -> None:
        self.files = []
        for number, embeddings in enumerate([EMBEDDINGS, OTHERS, FEW]):
            lists = around.assign(embeddings).lists
            index = build_lists(around.index)
            add_listed(index, embeddings, lists)
            effort = calibrate(embeddings, around.centroids, lists, codebook=around.codebook)
            file = InvertedLists(index, around.index, effort, shared=around)
            if number < 2:
                file.scan_codes = written(folder / f"codes{number}", around, embeddings, lists)
            self.files.append(file)


@pytest.mark.parametrize("same_tags", [False, True])
@pytest.mark.parametrize("k", [1, 10, 300, 4_000])
def test_a_stack_finds_by_codes_what_it_finds_without_them(
    tmp_path: Path, around: CentroidSet, k: int, *, same_tags: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if same_tags:
        monkeypatch.setattr(scan_codes, "_TAGS", 1)
    monkeypatch.setattr(stacked_lists, "_NODES_OF_CANDIDATE", 1)
    stack = StackedLists(Files(tmp_path, around).files)
    without = stack.search(Queries(QUERIES), k)
    scans = []
    scan = StackedCodes.scan
    monkeypatch.setattr(StackedCodes, "scan", lambda self, *args: scans.append(args[1]) or scan(self, *args))
    monkeypatch.setattr(stacked_lists, "_MIN_SCANNED", 1)
    together = stack.search(Queries(QUERIES), k)
    alone = [stack.search(Queries(query[None]), k) for query in QUERIES]
    assert bool(scans) == (k < 4_000)
    for query in range(len(QUERIES)):
        for found in (together[0][query], alone[query][0][0]):
            assert found.tobytes() == without[0][query].tobytes()
        nodes = [
            list(zip(*stack.find(labels[labels >= 0]), strict=True))
            for labels in (without[1][query], together[1][query], alone[query][1][0])
        ]
        assert sorted(nodes[0]) == sorted(nodes[1]) == sorted(nodes[2])


@pytest.mark.parametrize(
    ("measured", "joined"), [([], 0.0), ([5.0], 5.0), ([4.8, 5.2, 5.0], 5.05), ([3.0, 6.0, 3.0], 5.1)]
)
def test_errors_that_differ_by_chance_serve_by_their_mean_and_a_much_greater_one_nearly_as_it_is(
    measured: list[float], joined: float
) -> None:
    efforts = [Effort(0.1, 8, scan_deviations=deviations) for deviations in measured]
    found = stacked_lists._join_deviations(efforts, [100, 200, 100][: len(efforts)])
    assert found == pytest.approx(joined)


def test_the_best_of_many_that_hardly_differ_from_the_query_are_found_by_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their scores by codes are too low by more than those of others, as copies of one picture are."""
    deviations = 1 / np.sqrt(np.arange(1, 257))
    rows = np.random.default_rng(8).standard_normal((4_000, 256)) * deviations
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    copies = rows[0] + 0.3 * unit_vectors(9, 600, 256)
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    embeddings = np.concatenate([rows, copies]).astype(np.float16)
    around = build_file(train_centroids(embeddings[:3_000], 20), embeddings[:3_000], rows[:0]).centroids
    lists = around.assign(embeddings).lists
    known = slice(len(rows))
    effort = calibrate(embeddings[known], around.centroids, lists[known], codebook=around.codebook)
    index = build_lists(around.index)
    add_listed(index, embeddings, lists)
    file = InvertedLists(index, around.index, effort, shared=around)
    assert around.codebook is not None
    with (tmp_path / "codes").open("wb") as written_codes:
        ListCodes(embeddings, lists, around.centroids, around.codebook).write(written_codes)
    num_in_lists = np.bincount(lists, minlength=around.num_lists)
    file.scan_codes = ScanCodes(map_file(tmp_path / "codes"), num_in_lists, around.codebook)
    stack = StackedLists([file])
    queries = [Queries(rows[:1].astype(np.float32)), Queries(copies[:1].astype(np.float32))]
    exact = [stack.search(query, 10) for query in queries]
    monkeypatch.setattr(stacked_lists, "_MIN_SCANNED", 1)
    monkeypatch.setattr(stacked_lists, "_NODES_OF_CANDIDATE", 1)
    for query, (scores, _) in zip(queries, exact, strict=True):
        assert stack.search(query, 10)[0].tobytes() == scores.tobytes()


def test_a_query_of_zeros_is_answered(
    tmp_path: Path, around: CentroidSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_lists, "_NODES_OF_CANDIDATE", 1)
    monkeypatch.setattr(stacked_lists, "_MIN_SCANNED", 1)
    stack = StackedLists(Files(tmp_path, around).files)
    scores, labels = stack.search(Queries(np.zeros((1, DIMENSION), np.float32)), 10)
    assert not scores.any()
    assert (labels >= 0).all()


def test_pages_go_on_without_codes(
    tmp_path: Path, around: CentroidSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_lists, "_NODES_OF_CANDIDATE", 1)
    monkeypatch.setattr(stacked_lists, "_MIN_SCANNED", 1)
    monkeypatch.delattr(StackedCodes, "scan")
    stack = StackedLists(Files(tmp_path, around).files)
    scores, _ = stack.search(Queries(QUERIES, is_paged=True), 10)
    assert (scores > 0).all()
    with pytest.raises(AttributeError):
        stack.search(Queries(QUERIES), 10)
