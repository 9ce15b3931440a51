"""What a run of fine-tuning is told: plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """The settings that decide the trained weights. `as_json` of two runs tells whether they are the same."""

    train: Literal["projections", "last-blocks", "all"] = "last-blocks"
    blocks: int = 2
    epochs: int = 10
    batch_size: int = 256
    part_size: int = 64
    learning_rate: float = 1e-5
    weight_decay: float = 0.05
    warmup: float = 0.1
    mix: float = 0.5
    held_out: float = 0.1
    patience: int = 3
    seed: int = 1
    group_by: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
