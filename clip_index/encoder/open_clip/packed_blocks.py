"""The layers of CLIP's plain transformers, with weights that are laid out once for the processor.

The arithmetic is open_clip's own (pre-norm residual blocks). The execution differs:

- oneDNN's prepacked weights, with GELU and the residual sum fused into the layer before them;
- all tokens of a batch go through the linear layers as one matrix without padding, and only
  attention looks at one group of equally long sequences at a time;
- where torch's attention is slow, attention without a mask is made of products of matrices;
- after the last attention, only the rows that are pooled are computed;
- a token that begins all sequences of a causal transformer is computed once, because it attends to itself
  alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn
from torch.nn import functional

from clip_index.encoder.open_clip.processor import attends_slowly
from clip_index.encoder.open_clip.shared_weights import Exchange


@dataclass(frozen=True, slots=True)
class SequenceGroup:
    """Sequences of one length that lie next to each other in a matrix of tokens."""

    num_sequences: int
    length: int

    @property
    def num_tokens(self) -> int:
        return self.num_sequences * self.length


Groups: TypeAlias = Sequence[SequenceGroup]


# oneDNN multiplies fewer rows by kernels of their own, which add in another order.
_MIN_ROWS = 4
_EACH_SIZE_UNTIL, _STEPS_TO_DOUBLE = 16, 8
_MOST_TOKENS_OF_PRODUCTS = 257
"""The longest sequence whose attention is made of products of matrices: a picture of ViT-L-14.

In bf16 on a processor without AMX that takes 0.33 to 0.58 times as long as torch's attention for 50 to 257
tokens, and 0.9 times for 577. The scores of all pairs of tokens are held at once, and rounded to bf16. oneDNN
keeps 1.2 MB for each number of sequences.
"""


def filled_size(num_rows: int) -> int:
    """Return the number of rows that a matrix of so many tokens is filled up to.

    oneDNN compiles a kernel for each layer and each number of rows, and keeps it. For ViT-B-32 that is 2.4 MB
    for each number of tokens, and more CPU time than a batch of texts takes. So numbers beyond 16 are rounded
    up, by an eighth at most. Embeddings stay the same, because each row is treated alone.
    """
    if num_rows <= _EACH_SIZE_UNTIL:
        return max(num_rows, _MIN_ROWS)
    step = (1 << ((num_rows - 1).bit_length() - 1)) // _STEPS_TO_DOUBLE
    return -(-num_rows // step) * step


def filled_indices(indices: Tensor) -> Tensor:
    """Return the indices, with the first one repeated up to a power of two. Only one block computes these."""
    missing = max(_MIN_ROWS, 1 << (len(indices) - 1).bit_length()) - len(indices)
    return torch.cat([indices, indices[:1].expand(missing)])


def own(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of a model's weight, because behind the model's own ones there may be a file."""
    return weight.detach().to(dtype, copy=True)


class PackedLinear:
    """A linear layer, with the exact or tanh GELU that follows it, if there is one.

    If it is packed, the result of a row does not depend on the other rows, nor on their number.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, gelu: nn.GELU | None = None
    ) -> None:
        self._bias = None if bias is None else own(bias, dtype)
        self._gelu = gelu
        self._is_packed = _can_pack()
        if self._is_packed:
            rows = weight.detach().to(dtype).contiguous()
            self._weight = torch.ops.mkldnn._reorder_linear_weight(rows, None)
        else:
            self._weight = own(weight, dtype).contiguous()

    def exchange_weights(self, exchange: Exchange) -> None:
        self._weight = exchange(self._weight)

    def plus(self, rows: Tensor, residual: Tensor) -> Tensor:
        """Return the layer's output plus `residual`; only for a layer without GELU."""
        if self._is_packed:
            summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                _filled(rows), _filled(residual), self._weight, self._bias, "add"
            )
            return summed[: len(rows)]
        return functional.linear(rows, self._weight, self._bias).add_(residual)

    def __call__(self, rows: Tensor) -> Tensor:
        if self._is_packed:
            activation, algorithm = ("none", "") if self._gelu is None else ("gelu", self._gelu.approximate)
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(
                _filled(rows), self._weight, self._bias, activation, [], algorithm
            )
            return packed[: len(rows)]
        output = functional.linear(rows, self._weight, self._bias)
        return output if self._gelu is None else self._gelu(output)


class Norm:
    """A LayerNorm over the last dimension."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self._width = norm.normalized_shape
        self._weight, self._bias = own(norm.weight, dtype), own(norm.bias, dtype)
        self._eps = norm.eps

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, self._width, self._weight, self._bias, self._eps)


class PackedBlock:
    """One residual block."""

    def __init__(self, block: ResidualAttentionBlock, dtype: torch.dtype, *, is_causal: bool) -> None:
        attention, mlp = block.attn, block.mlp
        self._num_heads = attention.num_heads
        self._is_causal = is_causal
        self._has_slow_attention = dtype == torch.bfloat16 and attends_slowly()
        self._norm_1, self._norm_2 = Norm(block.ln_1, dtype), Norm(block.ln_2, dtype)
        self._qkv = PackedLinear(attention.in_proj_weight, attention.in_proj_bias, dtype)
        self._out = PackedLinear(attention.out_proj.weight, attention.out_proj.bias, dtype)
        fused = mlp.gelu if isinstance(mlp.gelu, nn.GELU) else None
        self._widen = PackedLinear(mlp.c_fc.weight, mlp.c_fc.bias, dtype, fused)
        self._activate = nn.Identity() if fused is not None else mlp.gelu
        self._narrow = PackedLinear(mlp.c_proj.weight, mlp.c_proj.bias, dtype)

    def __call__(self, rows: Tensor, groups: Groups, first: Tensor | None = None) -> Tensor:
        """Return the output (as rows). `first` is what `project` gives of a token before each sequence."""
        return self._feed_forward(self._out.plus(self._attend(rows, groups, first), rows))

    def project(self, rows: Tensor) -> Tensor:
        """Return query, key and value of the rows, side by side."""
        return self._qkv(self._norm_1(rows))

    def exchange_weights(self, exchange: Exchange) -> None:
        for layer in (self._qkv, self._out, self._widen, self._narrow):
            layer.exchange_weights(exchange)

    def pooled(self, rows: Tensor, groups: Groups, wanted: Tensor, first: Tensor | None = None) -> Tensor:
        """Return the block's output for the rows `wanted` only."""
        return self._feed_forward(self._out.plus(self._attend(rows, groups, first)[wanted], rows[wanted]))

    def _feed_forward(self, rows: Tensor) -> Tensor:
        return self._narrow.plus(self._activate(self._widen(self._norm_2(rows))), rows)

    def _attend(self, rows: Tensor, groups: Groups, first: Tensor | None) -> Tensor:
        qkv = self.project(rows)
        sizes = [group.num_tokens for group in groups]
        num_filling = len(rows) - sum(sizes)
        if len(groups) == 1 and num_filling == 0:
            return self._attend_group(qkv, groups[0], first)
        *parts, filling = torch.split(qkv, [*sizes, num_filling])
        attended = [self._attend_group(part, group, first) for part, group in zip(parts, groups, strict=True)]
        return torch.cat([*attended, filling[:, : rows.shape[1]]])  # nobody reads what becomes of the filling

    def _attend_group(self, qkv: Tensor, group: SequenceGroup, first: Tensor | None) -> Tensor:
        tokens = qkv.view(group.num_sequences, group.length, -1)
        if first is not None:
            tokens = torch.cat([first.expand(group.num_sequences, 1, -1), tokens], dim=1)
        heads = tokens.view(*tokens.shape[:2], 3, self._num_heads, -1)
        heads = heads.permute(2, 0, 3, 1, 4)
        if self._has_slow_attention and not self._is_causal and tokens.shape[1] <= _MOST_TOKENS_OF_PRODUCTS:
            attended = _attend_by_products(heads)
        else:
            query, key, value = heads
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=self._is_causal)
        # torch's attention on CPUs lays out the heads of a token side by side in memory, so that without
        # `first` nothing is copied
        return attended.transpose(1, 2)[:, -group.length :].reshape(group.num_tokens, -1)


class PackedTransformer:
    """A stack of residual blocks that ends in pooled rows."""

    def __init__(self, transformer: Transformer, dtype: torch.dtype, *, is_causal: bool) -> None:
        self._blocks = [PackedBlock(block, dtype, is_causal=is_causal) for block in transformer.resblocks]

    def __call__(
        self, rows: Tensor, groups: Groups, wanted: Tensor, firsts: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """Map token rows (sum of the groups, width) to the rows `wanted` of the output, in their order.

        Rows after those of the groups only fill the matrix (`filled_size`). `firsts` is what `begin` gives of
        a token that stands before each sequence, and is not among the rows.
        """
        *inner, last = zip(self._blocks, firsts or [None] * len(self._blocks), strict=True)
        for block, first in inner:
            rows = block(rows, groups, first)
        block, first = last
        return block.pooled(rows, groups, filled_indices(wanted), first)[: len(wanted)]

    def begin(self, row: Tensor) -> list[Tensor]:
        """Return what each block's attention reads of a token that begins a sequence (3 · width).

        In a causal transformer it is the same for all sequences that begin with it. The token is given as a
        row (1, width).
        """
        rows, firsts = row.expand(_MIN_ROWS, -1), []
        for block in self._blocks:
            firsts.append(block.project(rows)[0])
            rows = block(rows, [SequenceGroup(_MIN_ROWS, 1)])
        return firsts

    def exchange_weights(self, exchange: Exchange) -> None:
        for block in self._blocks:
            block.exchange_weights(exchange)

    def shortened(self) -> PackedTransformer:
        """Return the first and the last block alone, with the same weights.

        open_clip builds all blocks of a stack alike, so these two use every kernel that the stack uses.
        """
        short = copy.copy(self)
        short._blocks = [self._blocks[0], self._blocks[-1]]
        return short


def _attend_by_products(heads: Tensor) -> Tensor:
    """Return the attention without a mask of query, key and value, (3, sequences, heads, length, width).

    It has the shape (sequences, heads, length, width).
    """
    _, num_sequences, num_heads, length, width = heads.shape
    query, key, value = heads.reshape(3, num_sequences * num_heads, length, width)
    nothing = query.new_empty(())  # not read, because beta is 0
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), value).view(num_sequences, num_heads, length, width)


def _filled(rows: Tensor) -> Tensor:
    """Return the rows, and zeros after them if they are fewer than `_MIN_ROWS`."""
    missing = _MIN_ROWS - len(rows) if rows.dim() == 2 else 0
    return functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


def is_plain(transformer: nn.Module) -> bool:
    """Whether the stack is what PackedTransformer computes: no layer scale, no variants."""
    return isinstance(transformer, Transformer) and all(
        type(block) is ResidualAttentionBlock
        and isinstance(block.ls_1, nn.Identity)
        and isinstance(block.ls_2, nn.Identity)
        and isinstance(block.ln_1, nn.LayerNorm)
        and not hasattr(block, "ln_1_kv")
        and block.attn.in_proj_weight is not None
        for block in transformer.resblocks
    )


def _can_pack() -> bool:
    """Whether torch has the operators that its compiler packs with. They are internal and may go."""
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return bool(torch.backends.mkldnn.enabled) and hasattr(operator, "binary")
