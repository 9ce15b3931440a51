"""Which lists are near under a filter, found out for all files around the same centroids together.

The ten best are those of the whole index. A file's own ten best reach far beyond them, so a file that is
tried by itself scans several times as many lists before nothing better is found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.list_members import ListedSelection
from clip_index.vectors.lists.list_ranking import ListRanking
from clip_index.vectors.lists.list_trial import KeptScans, ScanLists
from clip_index.vectors.queries import Around, Found, Queries
from clip_index.vectors.vectors import NodeSelection


class _JoinedMembers:
    """The nodes of each list in all files."""

    def __init__(self, files: Sequence[InvertedLists]) -> None:
        self._files = files
        self.num_nodes = sum(file.num_nodes for file in files)

    @property
    def lengths(self) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = np.sum([file.members.lengths for file in self._files], axis=0)
        return lengths


class _JoinedSelection:
    """The selected nodes of all files."""

    def __init__(self, selections: Sequence[ListedSelection]) -> None:
        self._selections = selections
        self.num_nodes = sum(selection.num_nodes for selection in selections)

    def count_in(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.sum([one.count_in(lists) for one in self._selections], axis=0)
        return counts


def try_together(
    queries: Queries, k: int, around: Around, files: Sequence[tuple[InvertedLists, ListedSelection]]
) -> NDArray[np.int64] | None:
    """Let the searches of all files know how many lists are near to each query, and what these hold.

    `around` are the lists of all files around these centroids, those that need not be tried among them. The k
    best of each scan are kept for the searches if there is one query. Searches of several queries scan their
    lists anew, all in one call. Return how many lists are near, (q,), if nothing was tried.
    """
    lists, selections = [file for file, _ in files], [selection for _, selection in files]
    keeps = len(queries) == 1
    scans = [KeptScans(file.scan_selected, min(k, file.num_nodes)) for file in lists] if keeps else []
    scanners: Sequence[ScanLists[NodeSelection]] = scans or [file.scan_selected for file in lists]

    has_tried = False

    def scan(asked: Queries, num_best: int, probed: NDArray[np.int64], _: object) -> Found:
        nonlocal has_tried
        has_tried = True
        parts = [
            scan_file(asked, min(num_best, file.num_nodes), probed, selection)
            for scan_file, (file, selection) in zip(scanners, files, strict=True)
        ]
        scores = np.sort(np.concatenate([scores for scores, _ in parts], axis=1), axis=1)
        return np.ascontiguousarray(scores[:, ::-1][:, :num_best]), np.empty((0, 0), np.int64)

    ranking = ListRanking(around, _JoinedMembers(lists), around.num_lists)
    _, _, counts = ranking.rank(queries, _JoinedSelection(selections), scan)
    kept_scans: Sequence[KeptScans | None] = scans or [None] * len(lists)
    for file, kept in zip(lists, kept_scans, strict=True):
        file.know(queries, counts, kept)
    return None if has_tried else counts
