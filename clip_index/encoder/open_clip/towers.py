"""CLIP's two halves: pixels to embeddings, tokens to embeddings.

The packed towers compute plain CLIP transformers themselves. The eager towers let open_clip run
any other architecture. Both return float32 rows that are not normalised yet.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from clip_index.encoder.open_clip.packed_blocks import (
    Norm,
    PackedLinear,
    PackedTransformer,
    SequenceGroup,
    filled_size,
    is_plain,
    own,
)
from clip_index.encoder.open_clip.shared_weights import Exchange

ClipModule: TypeAlias = Any  # open_clip's models are untyped
_PROCESSOR = torch.device("cpu")


class Tower(Protocol):
    def __call__(self, batch: Tensor) -> Tensor:
        """Map uint8 pixels (n, height, width, 3) or int32 tokens (n, length) to float32 (n, dimension)."""


def build_image_tower(model: ClipModule, dtype: torch.dtype) -> Tower:
    visual = model.visual
    if isinstance(visual, VisionTransformer) and _is_plain_vision(visual):
        return PackedImageTower(visual, dtype)
    return EagerImageTower(model, dtype)


def build_text_tower(model: ClipModule, dtype: torch.dtype) -> Tower:
    text = getattr(model, "text", model)  # open_clip.CLIP holds the text tower's parts itself
    if is_plain(getattr(text, "transformer", nn.Identity())) and _is_plain_causal_text(text):
        return PackedTextTower(text, dtype)
    return EagerTextTower(model, dtype)


def _is_plain_vision(visual: VisionTransformer) -> bool:
    return visual.attn_pool is None and visual.pool_type == "tok" and is_plain(visual.transformer)


def _is_plain_causal_text(text: ClipModule) -> bool:
    if isinstance(text, TextTransformer) and (text.cls_emb is not None or text.use_pad_mask):
        return False
    return text.attn_mask is not None and _part(text, "pool_type") in ("argmax", "eos")


def _part(text: ClipModule, name: str) -> Any:
    """open_clip.CLIP puts `text_` before some names of its text tower."""
    return getattr(text, f"text_{name}") if hasattr(text, f"text_{name}") else getattr(text, name)


class PackedImageTower:
    """A vision transformer that reads raw pixels: its first layer includes the normalisation."""

    def __init__(self, visual: VisionTransformer, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._grid, self._patch = visual.grid_size, visual.patch_size
        self._embed = _patch_layer(visual, dtype)
        position = visual.positional_embedding.detach()
        self._first = (visual.class_embedding.detach() + position[0]).to(dtype)
        self._position = own(position[1:], dtype)
        self._norm_before = Norm(visual.ln_pre, dtype) if isinstance(visual.ln_pre, nn.LayerNorm) else None
        self._transformer = PackedTransformer(visual.transformer, dtype, is_causal=False)
        self._norm_after = Norm(visual.ln_post, torch.float32)
        self._project = _projection(visual.proj)

    def __call__(self, batch: Tensor) -> Tensor:
        rows = self._tokens(batch)
        num_images, length, width = rows.shape
        first_rows = torch.arange(num_images) * length
        group = SequenceGroup(num_images, length)
        pooled = self._transformer(rows.reshape(-1, width), [group], first_rows)
        return self._project(self._norm_after(pooled.float()))

    def exchange_weights(self, exchange: Exchange) -> None:
        self._embed.exchange_weights(exchange)
        self._transformer.exchange_weights(exchange)

    def shortened(self) -> PackedImageTower:
        """Return a tower of two blocks that uses the same kernels."""
        short = copy.copy(self)
        short._transformer = self._transformer.shortened()
        return short

    def _tokens(self, pixels: Tensor) -> Tensor:
        patches = self._embed(self._patches(pixels)) + self._position
        first = self._first.expand(len(pixels), 1, -1)
        tokens = torch.cat([first, patches], dim=1)
        return tokens if self._norm_before is None else self._norm_before(tokens)

    def _patches(self, pixels: Tensor) -> Tensor:
        (rows, columns), (height, width) = self._grid, self._patch
        whole = pixels[:, : rows * height, : columns * width]
        tiles = whole.reshape(len(pixels), rows, height, columns, width, 3).transpose(2, 3)
        return tiles.reshape(len(pixels), rows * columns, -1).to(self._dtype).sub_(128)


def _patch_layer(visual: VisionTransformer, dtype: torch.dtype) -> PackedLinear:
    """Return the patch convolution with the normalisation folded in, for pixel values minus 128.

    Whole numbers from -128 to 127 are exact in bf16. Normalised pixels would be rounded.
    """
    mean, std = (torch.tensor(visual.preprocess_cfg[key], dtype=torch.float64) for key in ("mean", "std"))
    weight = (
        visual.conv1.weight.detach().double().permute(0, 2, 3, 1)
    )  # (width, patch height, patch width, 3)
    bias = (weight * ((128 / 255 - mean) / std)).sum((1, 2, 3))
    return PackedLinear((weight / (255 * std)).flatten(1), bias, dtype)


@dataclass(frozen=True, slots=True)
class _Start:
    """A start token, and what each block's attention reads of it."""

    token: int
    firsts: Sequence[Tensor]


class PackedTextTower:
    """A causal text transformer that stops at each text's end token.

    Attention is causal and the end token is pooled, so tokens after it do not change the result. For the same
    reason the start token is computed once for all texts.
    """

    def __init__(self, text: ClipModule, dtype: torch.dtype) -> None:
        self._end_token = _part(text, "eos_id") if _part(text, "pool_type") == "eos" else None
        self._embedding = own(text.token_embedding.weight, dtype)
        self._position = own(text.positional_embedding, dtype)
        self._transformer = PackedTransformer(text.transformer, dtype, is_causal=True)
        self._norm_after = Norm(text.ln_final, torch.float32)
        self._project = _projection(text.text_projection)
        self._start: _Start | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        ends = self._end_positions(batch)
        order = torch.argsort(ends, stable=True)
        tokens, ends = batch[order], ends[order]
        start = self._start_of(tokens, ends)
        skipped = 0 if start is None else 1
        groups = length_groups((ends + 1 - skipped).tolist())
        rows, first_rows = self._tokens(tokens, groups, skipped)
        pooled = self._transformer(
            rows, groups, first_rows + ends - skipped, None if start is None else start.firsts
        )
        return self._project(self._norm_after(pooled.float()))[torch.argsort(order)]

    def exchange_weights(self, exchange: Exchange) -> None:
        self._embedding = exchange(self._embedding)
        self._transformer.exchange_weights(exchange)

    def shortened(self) -> PackedTextTower:
        """Return a tower of two blocks that uses the same kernels."""
        short = copy.copy(self)
        short._transformer, short._start = self._transformer.shortened(), None
        return short

    def _start_of(self, tokens: Tensor, ends: Tensor) -> _Start | None:
        """Return the token that all of these texts start with; None if they differ, or if it ends a text.

        `ends` are ascending.
        """
        token, start = int(tokens[0, 0]), self._start
        if int(ends[0]) == 0 or not bool((tokens[:, 0] == token).all()):
            return None
        if start is None or start.token != token:
            row = functional.embedding(tokens[:1, 0], self._embedding) + self._position[:1]
            self._start = start = _Start(token, self._transformer.begin(row))
        return start

    def _end_positions(self, tokens: Tensor) -> Tensor:
        # argmax: the end token has the greatest id, and argmax returns the first of equal values
        scores = tokens if self._end_token is None else torch.eq(tokens, self._end_token).int()
        return scores.argmax(dim=-1)

    def _tokens(self, tokens: Tensor, groups: Sequence[SequenceGroup], skipped: int) -> tuple[Tensor, Tensor]:
        """Return the embedded tokens of all groups as one matrix, and the row where each sequence begins.

        The first `skipped` tokens of each text are left out. The matrix ends in rows of zeros that fill it
        (`filled_size`).
        """
        rows, first_rows = [], []
        start = num_rows = 0
        for group in groups:
            positions = slice(skipped, skipped + group.length)
            members = tokens[start : start + group.num_sequences, positions]
            embedded = functional.embedding(members, self._embedding) + self._position[positions]
            rows.append(embedded.flatten(0, 1))
            first_rows.append(torch.arange(group.num_sequences) * group.length + num_rows)
            start += group.num_sequences
            num_rows += group.num_tokens
        rows.append(rows[0].new_zeros(filled_size(num_rows) - num_rows, rows[0].shape[1]))
        return torch.cat(rows), torch.cat(first_rows)


def length_groups(lengths: Sequence[int]) -> list[SequenceGroup]:
    """Put equal lengths, of ascending ones, into one group.

    No sequence is padded to the length of another one, because attention sums in another order then.
    """
    return [SequenceGroup(len(list(members)), length) for length, members in itertools.groupby(lengths)]


def _projection(projection: nn.Linear | Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return the last layer: a linear layer, a matrix (width, dimension), or nothing."""
    if projection is None:
        return nn.Identity()
    if isinstance(projection, nn.Linear):
        return PackedLinear(projection.weight, projection.bias, torch.float32)
    return PackedLinear(projection.t(), None, torch.float32)


class EagerImageTower:
    """open_clip's own image half, of any architecture. The model and the batches are on `device`."""

    def __init__(self, model: ClipModule, dtype: torch.dtype, device: torch.device = _PROCESSOR) -> None:
        self._model, self._dtype, self._device = model, dtype, device
        config = model.visual.preprocess_cfg
        self._mean, self._std = (
            torch.tensor(config[key], device=device).view(3, 1, 1) for key in ("mean", "std")
        )

    def __call__(self, batch: Tensor) -> Tensor:
        normalised = (batch.permute(0, 3, 1, 2) / 255 - self._mean) / self._std
        with _lowered(self._dtype, self._device):
            embeddings: Tensor = self._model.encode_image(normalised)
        return embeddings.float()


class EagerTextTower:
    """open_clip's own text half, padded to the context length. The model and the batches are on `device`."""

    def __init__(self, model: ClipModule, dtype: torch.dtype, device: torch.device = _PROCESSOR) -> None:
        self._model, self._dtype, self._device = model, dtype, device

    def __call__(self, batch: Tensor) -> Tensor:
        with _lowered(self._dtype, self._device):
            embeddings: Tensor = self._model.encode_text(batch.long())
        return embeddings.float()


def _lowered(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
