"""Lists of codes find what lists of embeddings find: the same hits, scores and order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.data import KINDS, Kind, draw_far_queries, draw_queries, draw_rows, draw_space
from clip_index.content import Modality, VectorForm
from clip_index.errors import DamagedFile
from clip_index.storage.mapped_part import map_file
from clip_index.vectors.centroid_set import CentroidFile
from clip_index.vectors.lists.quantised_lists import QuantisedLists
from clip_index.vectors.lists.stacked_lists import part_of_stack
from clip_index.vectors.queries import Queries, Reach
from clip_index.vectors.shared_vectors import SharedVectors
from clip_index.vectors.vector_file import NodeMap, VectorFile, build_node_map

NUM_ROWS = 6_000


class Alone:
    """The rest of an index that has only one segment, and a set of centroids if one is given."""

    num_shards = 1

    def __init__(self, *files: CentroidFile) -> None:
        self._files = files

    def num_nodes(self, _modality: Modality) -> int:
        return 0

    def sets(self, _modality: Modality) -> Iterable[CentroidFile]:
        return self._files

    def sample(self, _modality: Modality, _num_nodes: int) -> NDArray[np.float16]:
        return np.empty((0, 0), np.float16)


@dataclass(frozen=True)
class Both:
    """The same embeddings in both forms, around the same centroids."""

    exact: VectorFile
    quantised: VectorFile
    queries: np.ndarray


def write(
    directory: Path, node_map: NodeMap, form: VectorForm, *files: CentroidFile
) -> tuple[VectorFile, CentroidFile]:
    path, beside = directory / f"{form}.faiss", directory / f"{form}.embeddings.npy"
    with path.open("wb") as file:
        written = SharedVectors(Alone(*files), form=form)(file, node_map.embeddings, None, "image")
    assert written is not None
    assert written.shared is not None
    np.save(beside, node_map.embeddings)
    opened = VectorFile(
        map_file(path),
        node_map.node_rows,
        replace(written.effort, scan_candidates=0),  # there are no further codes beside these lists
        written.shared.centroids,
        map_file(beside) if written.is_quantised else None,
    )
    return opened, written.shared


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    kind: Kind = request.param
    directory, space = tmp_path_factory.mktemp(kind), draw_space(5, kind)
    rows = draw_rows(space, "image", NUM_ROWS, 5).astype(np.float16)
    node_map = build_node_map(rows, np.arange(NUM_ROWS, dtype=np.uint32))
    exact, shared = write(directory, node_map, "fp16")
    quantised, _ = write(directory, node_map, "sq8", shared)
    queries = [
        draw_queries(space, "image", 20, 6),
        draw_queries(space, "text", 20, 7),
        draw_far_queries(10, 8),
    ]
    return Both(exact, quantised, np.concatenate(queries))


def found(file: VectorFile, queries: np.ndarray, k: int, reach: Reach, is_node: np.ndarray | None) -> object:
    """Scores and nodes of each query. Nodes of one score are compared without their order."""
    selection = None if is_node is None else file.vectors.select(is_node)
    scores, nodes = file.vectors.search(Queries(queries), k, selection, reach)
    return [sorted(zip((-s).tolist(), n.tolist(), strict=True)) for s, n in zip(scores, nodes, strict=True)]


@pytest.mark.parametrize("reach", list(Reach))
@pytest.mark.parametrize("share", [None, 0.5, 0.01])
@pytest.mark.parametrize("k", [1, 10, 101])
def test_hits_and_scores_are_those_of_lists_of_embeddings(
    both: Both, k: int, share: float | None, reach: Reach
) -> None:
    num_nodes = both.exact.num_nodes
    is_node = None if share is None else np.random.default_rng(2).random(num_nodes) < share
    exact, quantised = (found(file, both.queries, k, reach, is_node) for file in (both.exact, both.quantised))
    assert quantised == exact


def test_who_asks_for_fewer_gets_the_first_of_the_same(both: Both) -> None:
    [few, many] = (both.quantised.vectors.search(Queries(both.queries), k, None)[0] for k in (5, 60))
    assert np.array_equal(few, many[:, :5])


def test_a_query_alone_scores_as_among_others(both: Both) -> None:
    together = both.quantised.vectors.search(Queries(both.queries), 10, None)[0]
    alone = [both.quantised.vectors.search(Queries(query[None]), 10, None)[0][0] for query in both.queries]
    assert np.array_equal(together, alone)


def test_the_lists_take_half_of_the_bytes(both: Both) -> None:
    assert both.quantised._part.data.size < 0.52 * both.exact._part.data.size
    assert isinstance(both.quantised.vectors, QuantisedLists)


def test_embeddings_are_read_as_they_were_written(both: Both) -> None:
    nodes = np.array([7, 3, both.exact.num_nodes - 1])
    assert np.array_equal(both.quantised.read_nodes(), both.exact.read_nodes())
    read = both.quantised.vectors.embeddings_of(nodes)
    assert np.array_equal(read, both.exact.vectors.embeddings_of(nodes))


def test_embeddings_that_are_all_alike_have_codes_too(tmp_path: Path) -> None:
    """Without a range the codes of a dimension would be a division by zero."""
    rows = np.tile(np.eye(8, dtype=np.float16)[0], (5_000, 1))
    rows[:, 1] = np.linspace(-0.01, 0.01, len(rows))
    node_map = build_node_map(rows, np.arange(len(rows), dtype=np.uint32))
    file, _ = write(tmp_path, node_map, "sq8")
    scores, nodes = file.vectors.search(Queries(np.eye(8, dtype=np.float32)[1:2]), 3, None, Reach.ALL)
    assert np.isfinite(scores).all()
    best = np.sort(node_map.embeddings[:, 1])[::-1][:3].astype(np.float32)
    assert scores[0] == pytest.approx(best)
    assert (nodes >= 0).all()


@pytest.mark.parametrize("num_rows", [0, 1])
def test_codes_without_their_embeddings_are_damage(both: Both, tmp_path: Path, num_rows: int) -> None:
    file = both.quantised
    assert file.lists is not None
    pairs = np.stack([file.node_rows.nodes, file.node_rows.rows])
    with pytest.raises(DamagedFile, match="without their embeddings"):
        VectorFile(file._part, pairs, shared=file.lists.shared)
    np.save(tmp_path / "short.npy", np.zeros((num_rows, 512), np.float16))
    with pytest.raises(DamagedFile, match=rf"embeddings of float16 \({num_rows}, 512\)"):
        VectorFile(file._part, pairs, shared=file.lists.shared, exact=map_file(tmp_path / "short.npy"))


def test_lists_of_embeddings_can_be_stacked_and_lists_of_codes_cannot(both: Both) -> None:
    exact, quantised = (
        part_of_stack(file.vectors, file.node_rows, NUM_ROWS) for file in (both.exact, both.quantised)
    )
    assert exact is not None
    assert quantised is None
