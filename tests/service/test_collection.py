"""What the collector of cycles leaves alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from service.collection import spare_what_stays


class Node:
    """Holds itself."""

    itself: Node


@pytest.fixture(autouse=True)
def _collects_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_is_loaded_is_left_out_and_later_cycles_are_still_collected() -> None:
    spare_what_stays()
    assert gc.get_freeze_count() > 0
    cycle = Node()
    cycle.itself = cycle
    is_there = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert is_there() is None
