"""Writes vectors in lists around a set of centroids that other segments use, too.

A merge adopts a set that the index has, while the set fits: it fits the segment's embeddings about as
well as those that it was trained for, and the index has not outgrown its number of lists. Otherwise
the merge trains a new set on embeddings of the whole index, and later merges adopt that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality, VectorForm
from clip_index.storage.pack import ByteSink
from clip_index.vectors.calibration import TARGET_RECALL, calibrate, measure_code_error
from clip_index.vectors.calibration_queries import may_train
from clip_index.vectors.centroid_set import (
    TRAINING_NODES_OF_LIST,
    CentroidFile,
    CentroidSet,
    KnownLists,
    build_file,
    num_lists_of,
    train_centroids,
)
from clip_index.vectors.flat_vectors import build_flat, write_flat
from clip_index.vectors.lists.codebook import may_have_codes
from clip_index.vectors.lists.inverted_lists import MIN_NODES, build_lists, write_lists
from clip_index.vectors.lists.quantised_lists import LEAST_CODE_ERROR, Quantiser
from clip_index.vectors.lists.scan_codes import ListCodes, should_write
from clip_index.vectors.vector_file import WrittenLists

_MAX_GROWTH = 2  # of the number of lists, so 4 of the number of nodes
_MAX_FARTHER = 1.15  # times the mean distance at the training
_NUM_TRIED = 4_096
_DRAWN = 1.25  # times what the training takes, because an eighth is held out
_SEED = 99


class RestOfIndex(Protocol):
    """The segments of the index beside the ones that are merged, in this shard and in the others."""

    @property
    def num_shards(self) -> int:
        """The shards of the whole index."""
        ...

    def num_nodes(self, modality: Modality) -> int:
        """Return how many distinct embeddings they have."""
        ...

    def sets(self, modality: Modality) -> Iterable[CentroidFile]:
        """Yield the sets of centroids that they use. Each is read when it is asked for."""
        ...

    def sample(self, modality: Modality, num_nodes: int) -> NDArray[np.float16]:
        """Draw about as many of their embeddings, (n, dimension); (0, 0) if they have none."""
        ...


class SharedVectors:
    """A `VectorWriter` for merges."""

    def __init__(
        self, rest: RestOfIndex, target_recall: float = TARGET_RECALL, form: VectorForm = "fp16"
    ) -> None:
        self._rest = rest
        self._target_recall = target_recall
        self._form = form

    def __call__(
        self,
        file: ByteSink,
        embeddings: NDArray[np.float16],
        others: NDArray[np.float16] | None,
        modality: Modality,
        known: KnownLists | None = None,
        /,
    ) -> WrittenLists | None:
        if len(embeddings) < MIN_NODES:
            write_flat(file, embeddings)
            return None
        chosen = self._find_fitting(modality, embeddings) or self._train(modality, embeddings)
        around = chosen.centroids
        lists, code_error = self._write(file, embeddings, others, around, chosen.find_known(known))
        has_codes = code_error == 0 and should_write(lists, around.num_lists)
        codebook = around.codebook if has_codes else None
        effort = calibrate(
            embeddings,
            around.centroids,
            lists,
            others=others,
            target_recall=self._target_recall,
            num_shards=self._rest.num_shards,
            codebook=codebook,
            spread=around.spread,
        )
        write_codes = (
            None if codebook is None else ListCodes(embeddings, lists, around.centroids, codebook).write
        )
        return WrittenLists(
            replace(effort, code_error=code_error),
            chosen,
            is_quantised=code_error > 0,
            write_codes=write_codes,
        )

    def _write(
        self,
        file: ByteSink,
        embeddings: NDArray[np.float16],
        others: NDArray[np.float16] | None,
        around: CentroidSet,
        known: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.int64], float]:
        """Write the lists; return the list of each embedding, (n,), and the error of their codes."""
        if self._form == "sq8":
            quantiser = Quantiser(embeddings)
            lists = quantiser.write(file, around, known)
            return lists, max(LEAST_CODE_ERROR, measure_code_error(embeddings, others, quantiser.decoded))
        empty = build_lists(build_flat(around.dimension), around.num_lists)
        return write_lists(file, empty, embeddings, around, known), 0.0

    def _find_fitting(self, modality: Modality, embeddings: NDArray[np.float16]) -> CentroidFile | None:
        """Return the fitting set with the most lists, so that all shards come to use the same one."""
        wanted = num_lists_of(len(embeddings) + self._rest.num_nodes(modality))
        found = list(self._rest.sets(modality))
        found.sort(key=lambda file: (-file.centroids.num_lists, file.digest.xxh3_128))
        return next((file for file in found if _fits(file.centroids, embeddings, wanted)), None)

    def _train(self, modality: Modality, embeddings: NDArray[np.float16]) -> CentroidFile:
        """Train on the same share of all parts of the index, without what calibration asks with."""
        num_nodes = len(embeddings) + self._rest.num_nodes(modality)
        num_lists = num_lists_of(num_nodes)
        share = min(1.0, _DRAWN * TRAINING_NODES_OF_LIST * num_lists / num_nodes)
        is_drawn = np.random.default_rng(_SEED).random(len(embeddings)) < share
        sample = self._rest.sample(modality, int(share * self._rest.num_nodes(modality)))
        drawn = np.concatenate([embeddings[is_drawn], sample]) if len(sample) else embeddings[is_drawn]
        is_training = may_train(drawn)
        if not is_training.any():  # by chance, of a few embeddings
            is_training[:] = True
        training, unseen = drawn[is_training], drawn[~is_training]
        del drawn  # the training takes memory itself
        return build_file(train_centroids(training, num_lists), training, unseen)


def _fits(centroids: CentroidSet, embeddings: NDArray[np.float16], wanted_lists: int) -> bool:
    """Whether a set has about as many lists as wanted, and the embeddings lie as near as at its training."""
    if not wanted_lists <= _MAX_GROWTH * centroids.num_lists <= _MAX_GROWTH**3 * wanted_lists:
        return False
    if centroids.dimension != embeddings.shape[1]:
        return False
    is_whole = centroids.codebook is not None and centroids.spread is not None
    if not is_whole and may_have_codes(centroids.dimension):
        return False  # trained by an earlier release
    chosen = np.random.default_rng(_SEED).choice(len(embeddings), min(_NUM_TRIED, len(embeddings)), False)
    assigned = centroids.assign(embeddings[np.sort(chosen)])
    expected = centroids.mean_cosines[assigned.lists]
    return float((1 - assigned.cosines).mean()) <= _MAX_FARTHER * float((1 - expected).mean()) + 1e-3
