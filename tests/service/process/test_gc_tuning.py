"""What the garbage collector leaves alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from service.process import gc_tuning
from service.process.gc_tuning import freeze_gc


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
    freeze_gc()
    assert gc.get_freeze_count() > 0
    cycle = Node()
    cycle.itself = cycle
    is_there = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert is_there() is None


def test_what_unreachable_cycles_held_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = Node()
    cycle.itself = cycle
    is_there = weakref.ref(cycle)
    del cycle
    were_there: list[bool] = []
    monkeypatch.setattr(gc_tuning, "return_freed_memory", lambda: were_there.append(is_there() is not None))
    freeze_gc()
    assert were_there == [False]
