"""What the collector of cycles leaves alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from service.collection import spare_what_stays


@pytest.fixture(autouse=True)
def _collects_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_is_loaded_is_left_out_and_later_cycles_are_still_collected() -> None:
    spare_what_stays()
    assert gc.get_freeze_count() > 0
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
