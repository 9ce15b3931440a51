"""Trains the demo's CLIP: the loss, the steps of the optimizer and the learning rate."""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from open_clip.model import CLIP
from torch.nn import functional

from cliptide.demo.garments.combinations import COLOURS, GARMENTS, PATTERNS
from cliptide.demo.small_clip.model import PIXEL_MEAN, PIXEL_STD
from cliptide.demo.small_clip.training_set import OPEN, Batch, BatchSampler, Pixels, TokenRows

PEAK_LEARNING_RATE = 1e-3
WARMUP_STEPS = 120
MAX_LOGIT_SCALE = math.log(100)
READ_OUT_SCALE = 8.0  # embeddings of length 1 are too short for the logits of a linear read-out
ATTRIBUTE_SIZES = [len(GARMENTS), len(COLOURS), len(PATTERNS)]


def fit_loss(
    logits: torch.Tensor, picture_attributes: torch.Tensor, caption_attributes: torch.Tensor
) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy, for captions that may fit several pictures and vice versa.

    `logits` is (pictures, captions); the attributes are (pictures, 3) and (captions, 3). The target of a
    picture is spread evenly over all captions that fit it, and the target of a caption over all pictures
    that it fits. A caption that fits no picture does not count.
    """
    described, shown = caption_attributes[None], picture_attributes[:, None]
    fits = ((described == shown) | (described == OPEN)).all(dim=2).float()
    return (_spread_cross_entropy(logits, fits) + _spread_cross_entropy(logits.T, fits.T)) / 2


def _spread_cross_entropy(logits: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    num_fits = fits.sum(dim=1)
    per_row = -(functional.log_softmax(logits, dim=1) * fits).sum(dim=1) / num_fits.clamp(min=1)
    return per_row.sum() / (num_fits > 0).sum()


def encode_rows(model: CLIP, rows: torch.Tensor) -> torch.Tensor:
    """Encode rows (captions, length) to embeddings (captions, dim), as `model.encode_text` does full rows."""
    length = rows.shape[1]
    hidden = model.token_embedding(rows) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    ends = hidden[torch.arange(len(rows)), rows.argmax(dim=1)]
    embeddings: torch.Tensor = ends @ model.text_projection
    return embeddings


class Trainer:
    """Trains a model with CLIP's loss and with three linear read-outs of the attributes.

    Pictures and texts share the read-outs, which are dropped after training. They push an embedding
    towards a sum of a garment, a colour and a pattern. So the model also knows combinations that it
    never saw.
    """

    def __init__(self, model: CLIP, sampler: BatchSampler, caption_rows: TokenRows, num_steps: int) -> None:
        self._model, self._sampler, self._caption_rows = model, sampler, caption_rows
        self._read_out = torch.nn.Linear(model.text_projection.shape[1], sum(ATTRIBUTE_SIZES))
        groups = _parameter_groups(model)
        groups.append({"params": list(self._read_out.parameters()), "weight_decay": 0.0})
        self._optimizer = torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: learning_rate_share(step, num_steps)
        )

    def step(self, batch_size: int) -> float:
        """Learn from one batch and return its loss."""
        loss = self._loss(self._sampler.sample(batch_size))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        return loss.item()

    def _loss(self, batch: Batch) -> torch.Tensor:
        captions = self._caption_rows[batch.captions]
        longest = int(captions.argmax(axis=1).max()) + 1
        with _autocast():
            seen = self._model.visual(_normalized(batch.pixels))
            read = encode_rows(self._model, torch.from_numpy(captions[:, :longest]))
        seen, read = (functional.normalize(embeddings.float(), dim=-1) for embeddings in (seen, read))
        shown, named = torch.from_numpy(batch.picture_attributes), torch.from_numpy(batch.caption_attributes)
        fit = fit_loss(self._model.logit_scale.exp() * seen @ read.T, shown, named)
        return fit + (self._read_out_loss(seen, shown) + self._read_out_loss(read, named)) / 2

    def _read_out_loss(self, embeddings: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Sum the cross-entropies of the attributes. Attributes that a caption does not name do not count."""
        logits = (self._read_out(embeddings) * READ_OUT_SCALE).split(ATTRIBUTE_SIZES, dim=1)
        losses = [
            functional.cross_entropy(logit, target, ignore_index=OPEN)
            for logit, target in zip(logits, attributes.unbind(dim=1), strict=True)
        ]
        return torch.stack(losses).sum()


def _normalized(pixels: Pixels) -> torch.Tensor:
    """Normalise pictures as the model's preprocessing does: (n, 3, height, width) float32."""
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)


def _autocast() -> AbstractContextManager[None]:
    """Compute in bfloat16 if the processor multiplies it in hardware."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def _parameter_groups(model: CLIP) -> list[dict[str, Any]]:
    """Apply weight decay only to the matrices of the blocks."""
    decayed = {n for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n}
    return [
        {"params": [p for n, p in model.named_parameters() if n in decayed], "weight_decay": 0.05},
        {"params": [p for n, p in model.named_parameters() if n not in decayed], "weight_decay": 0.0},
    ]


def learning_rate_share(step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate: it rises linearly, then falls to 0 as half a cosine."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, num_steps - WARMUP_STEPS)))
