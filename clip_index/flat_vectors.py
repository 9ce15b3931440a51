"""Small segments are scanned: one flat FAISS index of fp16 embeddings. What all vector files share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and nodes of each query, both (q, k), best first; nodes −1 where there are fewer."""


@dataclass(frozen=True, slots=True)
class NodeSelection:
    """The nodes that may be found: a bitmap of all, least significant bit first.

    `num_in_list` counts those in each inverted list, (lists,) int64; None for a flat file.
    """

    bitmap: NDArray[np.uint8]
    num_in_list: NDArray[np.int64] | None = None


def build_flat(dimension: int) -> Any:
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def write_flat(path: Path, embeddings: NDArray[np.float16]) -> None:
    """Write an exact index: fp16 rows, inner product."""
    index = build_flat(embeddings.shape[1])
    index.add(embeddings.astype(np.float32))
    write_index(path, index)


def write_index(path: Path, index: Any) -> None:
    """Write a FAISS index; `OSError` if the disk does not take all of it.

    FAISS's own file writer raises RuntimeError for that, and where the rest of its buffer is
    written, at closing, it prints a line and leaves a truncated file.
    """
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def scan(index: Any, queries: Embeddings, k: int, selection: NodeSelection | None) -> Found:
    """Return the exact k best nodes of each query among the selected ones."""
    use_one_thread()
    if selection is None:
        scores, nodes = index.search(queries, k)
    else:
        selector = faiss.IDSelectorBitmap(selection.bitmap)
        scores, nodes = index.search(queries, k, params=faiss.SearchParameters(sel=selector))
    return scores, nodes


def use_one_thread() -> None:
    """Search in the calling thread alone.

    Requests run beside each other as it is. A team of OpenMP threads for each query gains
    nothing on an idle machine and makes queries wait for each other on a busy one
    (measured there: 60 ms instead of 2 ms). The setting belongs to the calling thread.
    """
    faiss.omp_set_num_threads(1)
