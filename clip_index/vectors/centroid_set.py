"""A set of centroids that the inverted lists of many segments share.

Ranking the centroids is a large part of a search. Lists around one set need one ranking for a query,
in however many segments and shards they lie. A set is an immutable file that its digest names. So two
shards that hold a file of the same name hold the same set, and a process keeps the set in memory once.

The file is a `.npy` array, (lists, dimension) fp16. The direction of a row is a centroid. Its length is
the mean cosine of the embeddings that lay around it when the set was trained. So the file also says how
well the set fitted then, and a merge can tell whether it still fits.

Further arrays may follow: the codebook of the codes beside the lists (`CodebookArrays`). Before them lies an
array that former releases read as a codebook, (dimension ÷ 2, 16, 2) fp16. They had other codes, which are
not read any more, so theirs says nothing here, and they scan embeddings. Sets of former releases have that
array alone, or none. Last comes the spread around the centroids, (dimension, dimension) fp16
(`clip_index/vectors/near_lists/spread.py`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import faiss
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.errors import DamagedFile
from clip_index.storage.file_digest import FileDigest, digest_of
from clip_index.storage.mapped_array import HEADER_ERRORS, PARSING_HEADERS
from clip_index.storage.regular_files import read_regular
from clip_index.vectors.centroid_graph import build_finder
from clip_index.vectors.flat_vectors import build_flat
from clip_index.vectors.lists.codebook import Codebook, CodebookArrays, may_have_codes
from clip_index.vectors.lists.codebook_training import train_codebook
from clip_index.vectors.near_lists.spread import Spread, measure_spread
from clip_index.vectors.vectors import use_one_thread

_FEW_PER_ROOT, _FEW_LISTS, _LISTS_PER_ROOT = 2.0, 447, 2**0.5
"""Lists are 2·√nodes up to 447 (50,000 nodes), and √(2·nodes) from 100,000 nodes on.

FAISS's guideline is 4 to 16 √nodes, where a list costs little beside what it holds. Here each list lies in
a part for each segment and shard, with codes beside it in blocks of 32. With 632 lists, a search of 100,000
rows in four shards took 1.1 times the CPU time where data has no clusters, and 1.07 times where it has;
with 316 as much as with 447, and 1.07 times. Few lists hold several clusters each, and then a filter that
hides the nearest cluster is taken for one that does not depend on the query: 195 lists of 20,000 rows in
256 clusters did that. An index that has grown fourfold since its set was trained has half as many lists.
"""
_TRAINING = ((6, 24), (4, 96))
"""Rounds of the training, and how many nodes of each list they look at. The first rounds need few. Where data
has no clusters, searches for queries of the other modality read a sixth less than after four rounds with 48
nodes, and others 2 to 5 % less; ten rounds with 220 would take five times as long, and save hardly more."""
TRAINING_NODES_OF_LIST = max(num_nodes for _, num_nodes in _TRAINING)
_SPREAD_NODES = 2_048  # with as many, a query's deviation is off by some percent
_CODEBOOK_TRAINING = 8_192  # embeddings at most; each code has only 16 values
_SEED = 1234
_BLOCK = 2048
_MAX_BYTES = 2**30
_LEAST_LENGTH = 2**-6  # of a stored centroid; below, fp16 would lose its direction


@dataclass(frozen=True, slots=True)
class Assigned:
    """The list of each embedding, (n,), and its cosine with the list's centroid, (n,)."""

    lists: NDArray[np.int64]
    cosines: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KnownLists:
    """The lists that embeddings lie in already, around the set whose file has this digest.

    `lists` is (n,), with −1 for embeddings that lie in no list around it.
    """

    digest: FileDigest
    lists: NDArray[np.int64]


class CentroidSet:
    """Unit centroids with the precision of fp16. Immutable and thread-safe."""

    def __init__(
        self, stored: NDArray[np.float16], codebook: Codebook | None = None, spread: Spread | None = None
    ) -> None:
        """`stored` are the rows of the file, (lists, dimension)."""
        rows = stored.astype(np.float32)
        self.codebook = codebook
        self.spread = spread
        self.mean_cosines: NDArray[np.float32] = np.linalg.norm(rows, axis=1)
        """The mean cosine of the embeddings around each centroid at the training, (lists,)."""
        self.index: Any = build_flat(rows.shape[1])
        self.index.add(rows / self.mean_cosines[:, None])

    @classmethod
    def of(cls, centroids: Embeddings) -> CentroidSet:
        """Return a set of unit centroids that are stored in no file of their own."""
        return cls(centroids.astype(np.float16))

    @property
    def num_lists(self) -> int:
        return len(self.mean_cosines)

    @property
    def dimension(self) -> int:
        return int(self.index.d)

    @cached_property
    def centroids(self) -> Embeddings:
        """The unit centroids, (lists, dimension)."""
        centroids: Embeddings = self.index.reconstruct_n(0, self.num_lists)
        return centroids

    def assign(self, embeddings: NDArray[np.float16]) -> Assigned:
        """Find the nearest list of each embedding, (n, dimension)."""
        lists = np.empty(len(embeddings), np.int64)
        cosines = np.empty(len(embeddings), np.float32)
        for first in range(0, len(embeddings), _BLOCK):
            scores = embeddings[first : first + _BLOCK].astype(np.float32) @ self.centroids.T
            nearest = scores.argmax(axis=1)
            lists[first : first + _BLOCK] = nearest
            cosines[first : first + _BLOCK] = scores[np.arange(len(scores)), nearest]
        return Assigned(lists, cosines)

    def nearest(self, embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """Return the nearest list of each embedding, (n,), which does not depend on the other embeddings.

        The last bits of a product of matrices do. Between two centroids that are about as near, `assign` may
        choose the other one. So may this, of many centroids (`clip_index/vectors/centroid_graph.py`).
        """
        return nearest_lists(self._finder, embeddings)

    @cached_property
    def _finder(self) -> Any:
        return build_finder(self.index)

    def lists_of(
        self, embeddings: NDArray[np.float16], known: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Return the nearest list of each embedding, (n,). Those that are known, and not −1, stay."""
        if known is None:
            return self.assign(embeddings).lists
        is_new = known < 0
        lists: NDArray[np.int64] = known.copy()
        lists[is_new] = self.assign(embeddings[is_new]).lists
        return lists


def nearest_lists(centroids: Any, embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
    """Return which of the centroids (a FAISS index) is nearest to each embedding, (n,)."""
    use_one_thread()
    lists: NDArray[np.int64] = centroids.assign(embeddings.astype(np.float32), 1)[:, 0]
    return np.ascontiguousarray(lists)


def num_lists_of(num_nodes: int) -> int:
    """Return how many lists an index with this number of nodes should have."""
    root = np.sqrt(num_nodes)
    return int(min(_FEW_PER_ROOT * root, max(_FEW_LISTS, _LISTS_PER_ROOT * root)))


def train_centroids(embeddings: NDArray[np.float16], num_lists: int) -> Embeddings:
    """Return unit centroids, (lists, dimension); fewer than `num_lists` if there are fewer embeddings.

    Each is followed by the nearest of those that are left, so that a query finds its near lists in fewer
    places of a file.
    """
    num_lists = min(num_lists, len(embeddings))
    order = np.random.default_rng(_SEED).permutation(len(embeddings))
    centroids: Embeddings | None = None
    for num_rounds, nodes_of_list in _TRAINING:
        clusters = faiss.Kmeans(
            embeddings.shape[1],
            num_lists,
            niter=num_rounds,
            spherical=True,
            min_points_per_centroid=1,
            seed=_SEED,
        )
        chosen = np.sort(order[: nodes_of_list * num_lists])
        clusters.train(embeddings[chosen].astype(np.float32), init_centroids=centroids)
        centroids = clusters.centroids
    assert centroids is not None
    return centroids[_order_by_nearness(centroids)]


def _order_by_nearness(centroids: Embeddings) -> NDArray[np.int64]:
    """Return numbers of centroids, (lists,): after each the nearest of those that are left."""
    order, are_left = np.zeros(len(centroids), np.int64), np.ones(len(centroids), np.bool_)
    for place in range(1, len(centroids)):
        last = order[place - 1]
        are_left[last] = False
        order[place] = np.where(are_left, centroids @ centroids[last], -np.inf).argmax()
    return order


@dataclass(frozen=True, slots=True)
class CentroidFile:
    """A set with the bytes of its file."""

    centroids: CentroidSet
    data: bytes

    @property
    def digest(self) -> FileDigest:
        return digest_of(self.data)

    def find_known(self, known: KnownLists | None) -> NDArray[np.int64] | None:
        """Return the lists that embeddings are known to lie in around this set."""
        return known.lists if known is not None and known.digest == self.digest else None


def build_file(
    centroids: Embeddings, embeddings: NDArray[np.float16], unseen: NDArray[np.float16]
) -> CentroidFile:
    """Return the file of unit centroids, (lists, dimension), which tells how near embeddings lie.

    `embeddings` trained the centroids, so they lie nearer than others of their kind. The `unseen` ones
    tell by how much. A centroid that none of the embeddings lies around gets the mean of all.
    """
    around = CentroidSet.of(centroids)
    assigned, of_unseen = around.assign(embeddings), around.assign(unseen)
    counts = np.bincount(assigned.lists, minlength=len(centroids))
    sums = np.bincount(assigned.lists, 1 - assigned.cosines, minlength=len(centroids))
    distances = np.where(counts > 0, sums / np.maximum(counts, 1), (1 - assigned.cosines).mean())
    if len(unseen):
        distances *= (1 - of_unseen.cosines).mean() / max(1e-6, distances[of_unseen.lists].mean())
    file = io.BytesIO()
    lengths = np.clip(1 - distances, _LEAST_LENGTH, 1)
    np.save(file, (centroids * lengths[:, None]).astype(np.float16), allow_pickle=False)
    if may_have_codes(around.dimension):
        codebook = _train_codebook(around, embeddings, assigned)
        has_unseen = len(unseen) >= _SPREAD_NODES
        spread = (
            measure_spread(unseen, around.centroids, of_unseen.lists)
            if has_unseen
            else measure_spread(embeddings, around.centroids, assigned.lists)
        )
        former = np.zeros(_former_shape(around.dimension), np.float16)
        for array in (former, *astuple(codebook.arrays), spread):
            np.save(file, array, allow_pickle=False)
    return parse_file(file.getvalue(), "a new set of centroids")


def _train_codebook(around: CentroidSet, embeddings: NDArray[np.float16], assigned: Assigned) -> Codebook:
    some = slice(None, None, -(-len(embeddings) // _CODEBOOK_TRAINING) or 1)
    exact = embeddings[some].astype(np.float32)
    return train_codebook(exact, exact - around.centroids[assigned.lists[some]])


def _former_shape(dimension: int) -> tuple[int, int, int]:
    """Return the shape of the array that former releases read as a codebook."""
    return (dimension // 2, 16, 2)


def read_file(path: Path, digest: FileDigest) -> CentroidFile:
    """Read the file of a set; `DamagedFile` if it has another digest, `FileNotFoundError` if it is gone."""
    data = read_regular(path, _MAX_BYTES)
    if (found := digest_of(data)) != digest:
        raise DamagedFile(path, f"{found}, expected {digest}")
    return parse_file(data, path)


def parse_file(data: bytes, file: Path | str) -> CentroidFile:
    """Parse the bytes of a file; `DamagedFile`, which names `file`, if they are no centroids."""
    stream = io.BytesIO(data)
    rows = _parse_array(stream, file)
    if rows.dtype != np.float16 or rows.ndim != 2 or 0 in rows.shape:
        raise DamagedFile(file, f"an array of {rows.dtype} {rows.shape}, where centroids are expected")
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise DamagedFile(file, "a centroid has no direction")
    if stream.tell() < len(data):  # what former releases read as a codebook
        former = _parse_array(stream, file)
        if former.dtype != np.float16 or former.shape != _former_shape(rows.shape[1]):
            raise DamagedFile(file, f"an array of {former.dtype} {former.shape} after the centroids")
    codebook = _parse_codebook(stream, rows.shape[1], file) if stream.tell() < len(data) else None
    spread = _parse_spread(stream, rows.shape[1], codebook, file) if stream.tell() < len(data) else None
    return CentroidFile(CentroidSet(rows, codebook, spread), data)


def _parse_spread(stream: io.BytesIO, dimension: int, codebook: Codebook | None, file: Path | str) -> Spread:
    stored = _parse_array(stream, file)
    if stored.dtype != np.float16 or stored.shape != (dimension, dimension) or not np.isfinite(stored).all():
        raise DamagedFile(file, f"an array of {stored.dtype} {stored.shape}, where a spread is expected")
    return Spread(stored, codebook)


def _parse_codebook(stream: io.BytesIO, dimension: int, file: Path | str) -> Codebook:
    arrays = CodebookArrays(*(_parse_array(stream, file) for _ in fields(CodebookArrays)))
    if not arrays.fit(dimension):
        shapes = ", ".join(f"{array.dtype} {array.shape}" for array in astuple(arrays))
        raise DamagedFile(file, f"arrays of {shapes}, where a codebook is expected")
    return Codebook(arrays)


def _parse_array(stream: io.BytesIO, file: Path | str) -> NDArray[Any]:
    try:
        with PARSING_HEADERS:
            array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    except HEADER_ERRORS as error:
        raise DamagedFile(file, f"not an array ({error!r})") from error
    return array


class CentroidSets:
    """The sets that a process has open, each once, as long as something uses it. Thread-safe."""

    def __init__(self) -> None:
        self._sets: WeakValueDictionary[str, CentroidSet] = WeakValueDictionary()
        self._lock = Lock()

    def find_or_open(self, digest: FileDigest, path_of: Callable[[], Path]) -> CentroidSet:
        """Return the set with this digest. Its file is read only if no set of that digest is open."""
        with self._lock:
            found = self._sets.get(digest.xxh3_128)
            if found is None:
                found = read_file(path_of(), digest).centroids
                self._sets[digest.xxh3_128] = found
            return found
