import math

import numpy as np
import pytest
import torch
from open_clip.model import CLIP

from cliptide.demo.garments.combinations import training_combinations
from cliptide.demo.small_clip.model import model_config
from cliptide.demo.small_clip.trainer import build_trainer, fit_loss
from cliptide.demo.small_clip.training_set import (
    OPEN,
    Batch,
    BatchSampler,
    draw_pictures,
    read_captions,
    write_captions,
)

PICTURES = torch.tensor([[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("logits", "captions", "loss"),
    [
        pytest.param([[50.0, 0.0], [0.0, 50.0]], [[0, 0, 0], [1, 1, 1]], 0.0, id="each finds its own"),
        pytest.param([[0.0, 0.0], [0.0, 0.0]], [[0, 0, 0], [1, 1, 1]], math.log(2), id="undecided"),
        pytest.param([[0.0, 50.0], [50.0, 0.0]], [[0, 0, 0], [1, 1, 1]], 50.0, id="each finds the other"),
        pytest.param(
            [[50.0, 0.0], [0.0, 0.0]],
            [[0, 0, 0], [5, 5, 5]],
            0.0,
            id="a caption that fits none has no say, nor a picture",
        ),
        pytest.param(
            [[0.0, 0.0], [0.0, 0.0]],
            [[0, OPEN, OPEN], [1, OPEN, OPEN]],
            math.log(2),
            id="open attributes fit",
        ),
        pytest.param(
            [[9.0, 9.0], [9.0, 9.0]],
            [[OPEN, OPEN, OPEN], [OPEN, OPEN, OPEN]],
            math.log(2),
            id="the target is spread over all that fit",
        ),
    ],
)
def test_the_loss_wants_pictures_and_captions_that_fit_to_find_each_other(
    logits: list[list[float]], captions: list[list[int]], loss: float
):
    found = fit_loss(torch.tensor(logits), PICTURES, torch.tensor(captions))

    assert found.item() == pytest.approx(loss, abs=1e-4)


class OneBatchSampler(BatchSampler):
    """Gives the same batch at every step."""

    def sample(self, size: int) -> Batch:
        self._rng = np.random.default_rng(1)
        return super().sample(size)


@pytest.mark.encoder
def test_a_trainer_lowers_the_loss_of_what_it_sees_again():
    torch.manual_seed(1)
    combinations = training_combinations()
    captions = write_captions(combinations, 4, seed=1)
    vocabulary, rows = read_captions(captions, np.random.default_rng(1))
    pictures = [draw_pictures(combination, 1, seed=1) for combination in combinations]
    sampler = OneBatchSampler(combinations, pictures, captions, np.random.default_rng(1))
    trainer = build_trainer(CLIP(**model_config(len(vocabulary))), rows, num_steps=1000)

    losses = [trainer.step(sampler.sample(16)) for _ in range(30)]

    assert losses[-1] < 0.6 * losses[0]
