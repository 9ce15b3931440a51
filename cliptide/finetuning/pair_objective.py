"""What fine-tuning learns: the contrastive loss of pictures and their captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from clip_index.encoder.open_clip.models import Model
from cliptide.finetuning.contrast import contrastive_loss, encode_tokens, normalised_pixels
from cliptide.finetuning.pair_set import HeldOut, PairBatch, PairSet
from cliptide.finetuning.trainer import autocast
from cliptide.pairs.quality import TwoWayQuality
from cliptide.pairs.ranking import Embedded, measure


class PairObjective:
    """Implements Objective. In a batch, pairs of the same picture or the same caption fit each other."""

    def __init__(self, model: Model, device: str) -> None:
        self._module, self._device = model.module, device
        self._mean, self._std = model.preprocessing["mean"], model.preprocessing["std"]

    def extra_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def embed(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        return self.embed_pixels(batch.pixels), self.embed_tokens(batch.tokens)

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Tensor:
        tensor = normalised_pixels(self._on_device(pixels), self._mean, self._std)
        with autocast(self._device):
            return functional.normalize(self._module.encode_image(tensor).float(), dim=-1)

    def embed_tokens(self, tokens: NDArray[Any]) -> Tensor:
        with autocast(self._device):
            encoded = encode_tokens(self._module, self._on_device(tokens.astype(np.int64)))
        return functional.normalize(encoded.float(), dim=-1)

    def loss(self, seen: Tensor, read: Tensor, batch: PairBatch) -> Tensor:
        logits = self._module.logit_scale.exp() * seen @ read.T
        fits = (batch.pictures[:, None] == batch.pictures) | (batch.captions[:, None] == batch.captions)
        return contrastive_loss(logits, self._on_device(fits).float())

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class HeldOutMeasure:
    """Measures the model as it is on held-out pairs."""

    def __init__(self, objective: PairObjective, pairs: PairSet, held_out: HeldOut, part_size: int) -> None:
        self._objective, self._pairs, self._held_out = objective, pairs, held_out
        self._part_size = part_size

    @torch.inference_mode()
    def measure(self) -> TwoWayQuality:
        return measure(self._held_out.gallery, self._embed_pictures(), self._embed_captions())

    def _embed_pictures(self) -> Embedded:
        pixels, rows = self._pairs.pixels, self._held_out.picture_rows
        parts = [self._objective.embed_pixels(pixels[part]) for part in self._parts(rows)]
        return Embedded.one_row_each(torch.cat(parts).cpu().numpy())

    def _embed_captions(self) -> Embedded:
        windows = [self._pairs.tokens[number] for number in self._held_out.caption_numbers]
        rows = np.concatenate(windows)
        parts = [self._objective.embed_tokens(rows[part]) for part in self._parts(range(len(rows)))]
        embedded = torch.cat(parts).cpu().numpy()
        ends = np.cumsum([len(window) for window in windows])[:-1]
        return Embedded.of_parts(np.split(embedded, ends))

    def _parts(self, positions: Sequence[int]) -> list[list[int]]:
        size = self._part_size
        return [list(positions[start : start + size]) for start in range(0, len(positions), size)]
