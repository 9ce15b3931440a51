"""What the demo's CLIP learns: CLIP's loss, and three linear read-outs of the attributes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional

from cliptide.demo.garments.combinations import COLOURS, GARMENTS, PATTERNS
from cliptide.demo.small_clip.model import PIXEL_MEAN, PIXEL_STD
from cliptide.demo.small_clip.training_set import OPEN, Batch, TokenRows
from cliptide.finetuning.contrast import contrastive_loss, encode_tokens, normalised_pixels
from cliptide.finetuning.trainer import Schedule, Trainer, autocast

PEAK_LEARNING_RATE = 1e-3
WARMUP_STEPS = 120
READ_OUT_SCALE = 8.0  # embeddings of length 1 are too short for the logits of a linear read-out
ATTRIBUTE_SIZES = [len(GARMENTS), len(COLOURS), len(PATTERNS)]


def build_trainer(model: CLIP, caption_rows: TokenRows, num_steps: int) -> Trainer:
    """Build the trainer of a new model."""
    schedule = Schedule(PEAK_LEARNING_RATE, num_steps, WARMUP_STEPS)
    return Trainer(model, AttributeObjective(model, caption_rows), schedule)


def fit_loss(logits: Tensor, picture_attributes: Tensor, caption_attributes: Tensor) -> Tensor:
    """Return the contrastive loss of (pictures, captions) whose attributes tell what fits.

    The attributes are (pictures, 3) and (captions, 3).
    """
    described, shown = caption_attributes[None], picture_attributes[:, None]
    fits = ((described == shown) | (described == OPEN)).all(dim=2).float()
    return contrastive_loss(logits, fits)


class AttributeObjective:
    """CLIP's loss and three linear read-outs of the attributes. Implements Objective.

    Pictures and texts share the read-outs, which are dropped after training. They push an embedding
    towards a sum of a garment, a colour and a pattern. So the model also knows combinations that it
    never saw.
    """

    def __init__(self, model: CLIP, caption_rows: TokenRows) -> None:
        self._model, self._caption_rows = model, caption_rows
        self._read_out = nn.Linear(model.text_projection.shape[1], sum(ATTRIBUTE_SIZES))

    def extra_parameters(self) -> Iterable[nn.Parameter]:
        return self._read_out.parameters()

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        pixels = normalised_pixels(torch.from_numpy(batch.pixels), PIXEL_MEAN, PIXEL_STD)
        rows = torch.from_numpy(self._caption_rows[batch.captions])
        with autocast():
            seen, read = self._model.visual(pixels), encode_tokens(self._model, rows)
        return functional.normalize(seen.float(), dim=-1), functional.normalize(read.float(), dim=-1)

    def loss(self, seen: Tensor, read: Tensor, batch: Batch) -> Tensor:
        shown, named = torch.from_numpy(batch.picture_attributes), torch.from_numpy(batch.caption_attributes)
        fit = fit_loss(self._model.logit_scale.exp() * seen @ read.T, shown, named)
        return fit + (self._read_out_loss(seen, shown) + self._read_out_loss(read, named)) / 2

    def _read_out_loss(self, embeddings: Tensor, attributes: Tensor) -> Tensor:
        """Sum the cross-entropies of the attributes. Attributes that a caption does not name do not count."""
        logits = (self._read_out(embeddings) * READ_OUT_SCALE).split(ATTRIBUTE_SIZES, dim=1)
        losses = [
            functional.cross_entropy(logit, target, ignore_index=OPEN)
            for logit, target in zip(logits, attributes.unbind(dim=1), strict=True)
        ]
        return torch.stack(losses).sum()
