from __future__ import annotations

import math
from collections.abc import Iterator
from threading import Thread

import pytest
import torch
from torch import Tensor

from clip_index.encoder.open_clip.shared_tower import SharedTower, count_shares

pytestmark = pytest.mark.encoder


class RecordingTower:
    """Returns the rows it was given, and remembers how they came."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, bool]] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.calls.append((len(batch), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return batch.float()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_shares_come_back_as_one_batch_in_its_order() -> None:
    tower = RecordingTower()
    rows = torch.arange(66).view(33, 2)
    torch.testing.assert_close(SharedTower(tower, min_share=8)(rows), rows.float())
    assert sorted(tower.calls) == [(8, 1, True)] * 3 + [(9, 1, True)]


@pytest.mark.usefixtures("two_threads")
def test_a_small_batch_is_computed_by_all_threads_together() -> None:
    tower = RecordingTower()
    SharedTower(tower, min_share=8)(torch.zeros(15, 2))
    assert tower.calls == [(15, 2, False)]


@pytest.mark.usefixtures("two_threads")
def test_threads_elsewhere_keep_their_number() -> None:
    SharedTower(RecordingTower(), min_share=8)
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_share_is_the_callers() -> None:
    def broken(batch: Tensor) -> Tensor:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        SharedTower(broken, min_share=8)(torch.zeros(32, 2))


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_shares_are_neither_too_small_nor_too_large(num_threads: int) -> None:
    for num_rows in range(1, 200):
        num_shares = count_shares(num_rows, num_threads, 8)
        if num_shares > 1:
            assert num_shares % num_threads == 0
            assert num_rows // num_shares >= 8
            assert math.ceil(num_rows / num_shares) <= 16
        else:
            assert num_threads == 1 or num_rows < 8 * num_threads
