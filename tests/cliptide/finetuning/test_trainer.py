import numpy as np
import pytest
import torch

from cliptide.finetuning.trainer import Schedule, Trainer, learning_rate_share
from tests.cliptide.untrained_model import write_untrained_model

WARMUP_STEPS = 120


def test_the_learning_rate_rises_then_falls_to_nothing():
    shares = [learning_rate_share(step, 1000, WARMUP_STEPS) for step in range(1001)]

    assert shares[WARMUP_STEPS] == max(shares) == 1.0
    assert shares[:WARMUP_STEPS] == sorted(shares[:WARMUP_STEPS])
    assert shares[WARMUP_STEPS:] == sorted(shares[WARMUP_STEPS:], reverse=True)
    assert shares[-1] == pytest.approx(0)


@pytest.mark.encoder
def test_a_batch_in_parts_gives_the_gradients_of_the_whole_batch(tmp_path, monkeypatch):
    """Added-up gradients of the parts would not: a caption must be compared with all pictures."""
    from contextlib import nullcontext

    from clip_index.encoder.open_clip.models import load_model
    from clip_index.encoder.settings import EncoderSettings
    from cliptide.finetuning import pair_objective
    from cliptide.finetuning.pair_set import PairBatch
    from cliptide.finetuning.weights import choose_trained

    monkeypatch.setattr(pair_objective, "autocast", lambda device: nullcontext())  # bf16 would round
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (7, 64, 64, 3), dtype=np.uint8)
    tokens = np.zeros((7, 77), dtype=np.int64)
    tokens[:, :4] = np.column_stack([np.full(7, 49406), rng.integers(256, 512, (7, 2)), np.full(7, 49407)])
    batch = PairBatch(pixels, tokens, np.arange(7), np.arange(7))
    gradients = []
    for part_size in (None, 3):
        model = load_model(EncoderSettings(model=str(write_untrained_model(tmp_path)), pretrained=None))
        choose_trained(model.module, "last-blocks", 1)
        objective = pair_objective.PairObjective(model, "cpu")
        trainer = Trainer(model.module, objective, Schedule(1e-3, 10, 1), part_size=part_size)
        loss = trainer._backward(batch)
        trained = [p.grad.flatten() for p in model.module.parameters() if p.requires_grad]
        gradients.append((loss, torch.cat(trained)))

    assert gradients[0][0] == pytest.approx(gradients[1][0], abs=1e-5)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-5)
    assert gradients[0][1].abs().max() > 1e-3
