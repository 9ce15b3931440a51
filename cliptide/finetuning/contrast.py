"""CLIP's contrastive loss, for captions that may fit several pictures of a batch and vice versa."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional


def contrastive_loss(logits: Tensor, fits: Tensor) -> Tensor:
    """Return CLIP's symmetric cross-entropy.

    `logits` and `fits` are (pictures, captions). The target of a picture is spread evenly over all captions
    that fit it, and the target of a caption over all pictures that it fits. What fits nothing does not count.
    """
    return (_spread_cross_entropy(logits, fits) + _spread_cross_entropy(logits.T, fits.T)) / 2


def _spread_cross_entropy(logits: Tensor, fits: Tensor) -> Tensor:
    num_fits = fits.sum(dim=1)
    per_row = -(functional.log_softmax(logits, dim=1) * fits).sum(dim=1) / num_fits.clamp(min=1)
    return per_row.sum() / (num_fits > 0).sum()


def encode_tokens(model: Any, tokens: Tensor) -> Tensor:
    """Encode tokens (captions, length) as `model.encode_text` does.

    A plain CLIP computes only as far as the longest caption reaches. Its attention is causal, so what
    follows the end token changes nothing.
    """
    if type(model) is not CLIP or model.attn_mask is None or model.text_pool_type != "argmax":
        encoded: Tensor = model.encode_text(tokens)
        return encoded
    ends = tokens.argmax(dim=1)
    length = int(ends.max()) + 1
    hidden = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    return _projected(model.text_projection, hidden[torch.arange(len(tokens), device=tokens.device), ends])


def _projected(projection: Any, pooled: Tensor) -> Tensor:
    if projection is None:
        return pooled
    projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return projected


def normalised_pixels(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    """Normalise pictures uint8 (n, height, width, 3) to float32 (n, 3, height, width)."""
    scaled = pixels.permute(0, 3, 1, 2).float() / 255
    shift, scale = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (mean, std))
    return (scaled - shift) / scale
