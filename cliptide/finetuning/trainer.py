"""The trainer: the steps of the optimizer, the learning rate, and batches larger than the memory.

A contrastive loss compares every picture of a batch with every caption. So the gradients of small batches
cannot simply be added up. The trainer embeds a large batch in parts without gradients, computes the loss and
its gradient by the embeddings of the whole batch, and then embeds each part again, this time to carry that
gradient to the weights (GradCache, arXiv 2101.06983). The result is that of one large batch, for the memory
of one part and about a third more time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

MAX_LOGIT_SCALE = math.log(100)  # as CLIP was trained


class Batch(Protocol):
    """Pictures and their captions, in the same order."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Batch:
        """Return the pairs from `start` to `stop`."""


AnyBatch = TypeVar("AnyBatch", bound=Batch, contravariant=True)


class Objective(Protocol[AnyBatch]):
    """What a model learns. `embed` returns unit rows of float32."""

    def embed(self, batch: AnyBatch) -> tuple[Tensor, Tensor]: ...

    def loss(self, seen: Tensor, read: Tensor, batch: AnyBatch) -> Tensor: ...

    def extra_parameters(self) -> Iterable[nn.Parameter]:
        """Return parameters that are trained beside the model's and dropped afterwards."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate changes: it rises over the warm-up, then falls to 0 as half a cosine."""

    peak: float
    num_steps: int
    num_warmup_steps: int
    weight_decay: float = 0.05

    def learning_rate(self, step: int) -> float:
        return self.peak * learning_rate_share(step, self.num_steps, self.num_warmup_steps)


def learning_rate_share(step: int, num_steps: int, num_warmup_steps: int) -> float:
    """Return the share of the peak learning rate: it rises linearly, then falls to 0 as half a cosine."""
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    rest = max(1, num_steps - num_warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - num_warmup_steps) / rest)))


class Trainer:
    """Trains those parameters of a model that require a gradient."""

    def __init__(
        self, model: Any, objective: Objective[Any], schedule: Schedule, *, part_size: int | None = None
    ) -> None:
        self._model, self._objective, self._schedule = model, objective, schedule
        self._part_size = part_size
        groups = _parameter_groups(model, schedule.weight_decay)
        groups.append({"params": list(objective.extra_parameters()), "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.peak, betas=(0.9, 0.98))
        self.num_steps_done = 0

    def step(self, batch: Batch) -> float:
        """Learn from one batch and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._schedule.learning_rate(self.num_steps_done)
        self.optimizer.zero_grad()
        loss = self._backward(batch)
        torch.nn.utils.clip_grad_norm_(_trained(self._model), 1.0)
        self.optimizer.step()
        self.num_steps_done += 1
        with torch.no_grad():
            self._model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        return loss

    def _backward(self, batch: Batch) -> float:
        size = self._part_size or len(batch)
        parts = [batch.part(start, start + size) for start in range(0, len(batch), size)]
        if len(parts) > 1:
            return self._backward_in_parts(batch, parts)
        seen, read = self._embed(batch)
        loss = self._objective.loss(seen, read, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _backward_in_parts(self, batch: Batch, parts: Sequence[Batch]) -> float:
        with torch.no_grad():
            embedded = [self._embed(part) for part in parts]
        seen, read = (torch.cat(rows).requires_grad_() for rows in zip(*embedded, strict=True))
        loss = self._objective.loss(seen, read, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = zip(_split(seen.grad, parts), _split(read.grad, parts), strict=True)
        for part, gradient in zip(parts, gradients, strict=True):
            rows = [pair for pair in zip(self._embed(part), gradient, strict=True) if pair[0].requires_grad]
            torch.autograd.backward([row for row, _ in rows], [grad for _, grad in rows])
        return loss.item()

    def _embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._objective.embed(batch)


def _split(gradient: Tensor | None, parts: Sequence[Batch]) -> Sequence[Tensor]:
    assert gradient is not None  # the loss depends on every embedding
    return torch.split(gradient, [len(part) for part in parts])


def autocast(device: str = "cpu") -> AbstractContextManager[None]:
    """Compute in bfloat16 if the device multiplies it in hardware."""
    if device == "cuda":
        return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Apply weight decay only to the matrices of the blocks."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    decayed = {name for name, p in trained.items() if p.ndim >= 2 and "embedding" not in name}
    return [
        {"params": [p for name, p in trained.items() if name in decayed], "weight_decay": weight_decay},
        {"params": [p for name, p in trained.items() if name not in decayed], "weight_decay": 0.0},
    ]
