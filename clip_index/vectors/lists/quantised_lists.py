"""Lists of 8-bit codes, whose candidates are scored again from the embeddings themselves.

Scanning reads the codes, half as many bytes as fp16. So the memory of a machine holds twice as many
vectors. The fp16 embeddings lie beside the lists in a file that is mapped, and of it a search reads only
the candidates. Hits, scores and their order are those of fp16 lists.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.storage.pack import ByteSink
from clip_index.vectors.centroid_set import CentroidSet
from clip_index.vectors.flat_vectors import build_flat
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.list_writer import write_listed
from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.queries import Found, Queries, Reach
from clip_index.vectors.vectors import NodeSelection, VectorPart, clip_scores

LEAST_CODE_ERROR = 1e-6
"""Of embeddings that their codes happen to give back as they are. 0 says that there are no codes."""
_BLOCK = 65536
_FIRST_CANDIDATES = 16
"""Beside twice the wanted ones."""


class QuantisedLists(InvertedLists):
    """A search takes candidates from the lists, and scores them again. Immutable and thread-safe."""

    def __init__(
        self, index: Any, centroids: Any, effort: Effort, exact: NDArray[np.float16], **options: Any
    ) -> None:
        """`exact` are the embeddings, (nodes, dimension), where they are mapped."""
        super().__init__(index, centroids, effort, **options)
        self._exact = exact
        self.codes = None  # hits are scored again
        self._code_error = effort.code_error

    def search(
        self, queries: Queries, k: int, selection: NodeSelection | None, reach: Reach = Reach.NEAR
    ) -> Found:
        """Ask for candidates until none that is left out can score as high as the k-th, but for its error."""
        num_candidates = min(2 * k + _FIRST_CANDIDATES, self.num_nodes)
        while True:
            by_codes, nodes = super().search(queries, num_candidates, selection, reach)
            found = self._rescored(queries, nodes, k)
            is_all = nodes[:, -1] < 0
            is_settled = is_all | (by_codes[:, -1] + self._code_error < found[0][:, -1])
            if num_candidates == self.num_nodes or is_settled.all():
                return found
            num_candidates = min(2 * num_candidates, self.num_nodes)

    def _rescored(self, queries: Queries, candidates: NDArray[np.int64], k: int) -> Found:
        """Return the k best candidates, (q, k), by the scores that fp16 lists would give them."""
        scores, nodes = queries.empty(k)
        scores.fill(-np.inf)
        nodes.fill(-1)
        for query, found in enumerate(candidates):
            members = np.sort(found[found >= 0])
            if len(members):
                num_best = min(k, len(members))
                of_query = self._score(queries.embeddings[query : query + 1], members, num_best)
                scores[query, :num_best], nodes[query, :num_best] = of_query
        return clip_scores((scores, nodes))

    def _score(self, query: Embeddings, members: NDArray[np.int64], k: int) -> Found:
        """Let FAISS score them: numpy's sums differ in the last bit, and with how many are scored at once."""
        index = build_flat(self._exact.shape[1])
        index.add_sa_codes(self._exact[members].view(np.uint8))
        scores, positions = index.search(query, k)
        return scores[0], members[positions[0]]

    def parts(self) -> Any:
        for first in range(0, self.num_nodes, _BLOCK):
            part: VectorPart = (
                np.arange(first, min(first + _BLOCK, self.num_nodes)),
                self._exact[first : first + _BLOCK],
            )
            yield part

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        return self._exact[nodes].astype(np.float32)


def is_quantised(index: Any) -> bool:
    """Whether the lists of a FAISS index hold codes, and not the embeddings."""
    return bool(index.sq.qtype != faiss.ScalarQuantizer.QT_fp16)


class Quantiser:
    """Turns embeddings into codes of 8 bits a dimension, between the least and the greatest value there."""

    def __init__(self, embeddings: NDArray[np.float16]) -> None:
        bounds = np.stack([_by_blocks(np.min, embeddings), _by_blocks(np.max, embeddings)])
        self._embeddings = embeddings
        self._bounds = bounds.astype(np.float32)
        self._quantizer = faiss.ScalarQuantizer(embeddings.shape[1], faiss.ScalarQuantizer.QT_8bit)
        self._quantizer.train(self._bounds)

    def write(
        self, file: ByteSink, around: CentroidSet, known: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Write lists of codes around a shared set; return the list of each embedding, (n,).

        `known` are lists that need not be looked for.
        """
        index = faiss.IndexIVFScalarQuantizer(
            build_flat(around.dimension),
            around.dimension,
            around.num_lists,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        index.sq.train(self._bounds)
        index.is_trained = True
        lists = around.lists_of(self._embeddings, known)
        write_listed(file, index, lists, self._codes_of)
        return lists

    def decoded(self, embeddings: Embeddings) -> Embeddings:
        """Return what the codes of some embeddings give back, (n, dimension)."""
        decoded: Embeddings = self._quantizer.decode(self._quantizer.compute_codes(embeddings))
        return decoded

    def _codes_of(self, nodes: NDArray[np.int64]) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self._quantizer.compute_codes(self._embeddings[nodes].astype(np.float32))
        return codes


def _by_blocks(bound: Any, embeddings: NDArray[np.float16]) -> NDArray[np.float16]:
    blocks = [
        bound(embeddings[first : first + _BLOCK], axis=0) for first in range(0, len(embeddings), _BLOCK)
    ]
    found: NDArray[np.float16] = bound(blocks, axis=0)
    return found
