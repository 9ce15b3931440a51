"""Which nodes lie in which inverted list, and nodes that are selected among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from clip_index.vectors.lists.search_parameters import SearchParameters
from clip_index.vectors.vectors import NodeSelection

_FEW_LISTS = 1 / 4
"""Up to this share of the lists, their members are counted by themselves. All lists are counted together."""

_MANY_POSITIONS = 1 / 8
"""From this share of the nodes on, their lists are read from a table of all nodes, which is made for that."""

_MANY_COUNTS = 8
"""A selection that more searches have counted is that of the rows that are not dead, or a usual filter's."""


class ListMembers:
    """The nodes of each list. Read from the lists when somebody asks for them. Thread-safe."""

    def __init__(self, lists: Any, num_nodes: int, list_of_node: NDArray[np.int64] | None = None) -> None:
        """`lists` are FAISS's; `list_of_node`, (nodes,), need not be read from them if it is known."""
        self._lists = lists
        self.num_nodes = num_nodes
        self._num_lists = int(lists.nlist)
        self._list_of_node = list_of_node

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """The number of nodes in each list, (lists,)."""
        if self._list_of_node is not None:
            return np.bincount(self._list_of_node, minlength=self._num_lists)
        return np.array([self._lists.list_size(number) for number in range(self._num_lists)], np.int64)

    @cached_property
    def nodes(self) -> NDArray[np.int32]:
        """All nodes, list after list, in the order in which a list holds them."""
        if self._list_of_node is not None:
            return np.argsort(self._list_of_node, kind="stable").astype(np.int32)
        nodes = np.empty(self.num_nodes, np.int32)
        for start, members in self._stored():
            nodes[start : start + len(members)] = members
        return nodes

    def _stored(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield where each list that is not empty starts in `nodes`, and its nodes as they are stored."""
        for number, length in enumerate(self.lengths.tolist()):
            if length:
                yield int(self.starts[number]), faiss.rev_swig_ptr(self._lists.get_ids(number), length)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each list starts in `nodes`, and the end of the last one, (lists + 1,)."""
        return _starts(self.lengths)

    @cached_property
    def _positions(self) -> NDArray[np.int32]:
        """The position of each node in `nodes`."""
        positions = np.empty(self.num_nodes, np.int32)
        if self._list_of_node is not None:
            positions[self.nodes] = np.arange(self.num_nodes, dtype=np.int32)
            return positions
        for start, members in self._stored():  # not `nodes`, which takes twice as much memory
            positions[members] = np.arange(start, start + len(members), dtype=np.int32)
        return positions

    def lists_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the list that each node lies in, (n,)."""
        return self.find(nodes)[0]

    def find(
        self, nodes: NDArray[np.int64] | NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the list that each node lies in, and its position there, both (n,)."""
        return self._at(self._positions[nodes])

    def find_in_order(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the nodes in the order of the lists, and what `find` returns of them."""
        positions = np.sort(self._positions[nodes])
        return self.nodes[positions].astype(np.int64), *self._at(positions)

    def _at(self, positions: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(positions) > _MANY_POSITIONS * self.num_nodes:
            lists = np.repeat(np.arange(self._num_lists), self.lengths)[positions]
        else:
            lists = np.searchsorted(self.starts, positions, side="right") - 1
        return lists, positions - self.starts[lists]

    def count_in_all(self, is_node: NDArray[np.int8]) -> NDArray[np.int64]:
        """Return how many of the nodes of a mask each list has, (lists,)."""
        num_in_list = np.zeros(self._num_lists, np.int64)
        starts = self.starts[:-1][self._has_nodes]
        are_selected = is_node[self.nodes.astype(np.int64)]  # numpy indexes by 32 bits more slowly
        num_in_list[self._has_nodes] = np.add.reduceat(are_selected, starts, dtype=np.int32)
        return num_in_list

    @cached_property
    def _has_nodes(self) -> NDArray[np.bool_]:
        return self.lengths > 0

    def count_in(self, lists: NDArray[np.int64], bitmap: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return how many of the nodes of a bitmap some lists have, (n,). Other lists are not looked at."""
        ends = _starts(self.lengths[lists])
        positions = np.arange(ends[-1]) + np.repeat(self.starts[lists] - ends[:-1], self.lengths[lists])
        nodes = self.nodes[positions].astype(np.int64)
        are_selected = (bitmap[nodes >> 3] >> (nodes & 7).astype(np.uint8)) & 1
        met = _starts(are_selected)[ends]
        return np.diff(met)


class ListedSelection(NodeSelection):
    """Nodes of inverted lists that may be found."""

    def __init__(
        self,
        members: ListMembers,
        bitmap: NDArray[np.uint8],
        num_nodes: int,
        find_addresses: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]],
    ) -> None:
        """`find_addresses` returns where codes lie, given their lists and their positions in these."""
        super().__init__(bitmap, num_nodes)
        self._members = members
        self._find_addresses = find_addresses
        self._num_counts = 0
        self.parameters = SearchParameters(bitmap)

    @cached_property
    def num_in_list(self) -> NDArray[np.int64]:  # type: ignore[override]
        is_node = np.unpackbits(self.bitmap, bitorder="little")
        return self._members.count_in_all(is_node.view(np.int8))

    def know_counts(self, former: ListedSelection, gone: NDArray[np.int64]) -> None:
        """Take over what `former` has counted, which selects the nodes `gone`, (n,), besides.

        So while rows die all the time, the live ones need not be counted again after each commit.
        """
        counted = former.__dict__.get("num_in_list")
        if counted is not None:
            died = np.bincount(self._members.lists_of(gone), minlength=len(counted))
            self.__dict__["num_in_list"] = counted - died

    def count_in(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many selected nodes lists have, of the shape of `lists`."""
        self._num_counts += 1
        is_known = "num_in_list" in self.__dict__ or self._num_counts > _MANY_COUNTS
        if is_known or lists.size > _FEW_LISTS * len(self._members.lengths):
            return self.num_in_list[lists]
        return self._members.count_in(lists.ravel(), self.bitmap).reshape(lists.shape)

    @cached_property
    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The selected nodes as their codes lie in memory, and the address of each code."""
        nodes, lists, positions = self._members.find_in_order(self.nodes)
        return nodes, self._find_addresses(lists, positions)


def listed(selection: NodeSelection) -> ListedSelection:
    """Return a selection that lists have made."""
    assert isinstance(selection, ListedSelection)  # it was made by the lists that it is given to
    return selection


def _starts(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where each list starts, and the end of the last one."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
