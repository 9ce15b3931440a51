"""Which model encodes, and how; plain values, readable without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from clip_index.encoder.images import ImageLimits

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """A model and how to run it.

    `model` is one of open_clip's names (`ViT-B-32`), `hf-hub:owner/name`, a directory that holds
    `open_clip_config.json` and a safetensors file, or a safetensors file with that config beside it.
    `pretrained` goes with a name alone: one of open_clip's tags, or a safetensors file.
    `precision` `auto` means bf16 where the processor multiplies bf16 natively. `threads` is left
    to torch when None. `max_batch` bounds pictures (and windows of texts) in one pass.
    `cache_dir` is where downloaded weights are kept.
    """

    model: str = field(
        default="ViT-B-32",
        metadata={"description": "A name of open_clip's, hf-hub:owner/name, a directory or a file."},
    )
    pretrained: str | None = field(
        default="laion2b_s34b_b79k",
        metadata={"description": "Goes with a name: one of open_clip's tags, or a file."},
    )
    precision: Precision = field(
        default="auto",
        metadata={"description": "auto, fp32 or bf16; auto is bf16 where the processor has it."},
    )
    threads: int | None = field(
        default=None, metadata={"description": "Threads of the encoder; unset: as many as torch likes."}
    )
    max_batch: int = field(
        default=32, metadata={"description": "Pictures and text windows in one pass of the model."}
    )
    cache_dir: Path | None = field(
        default=None, metadata={"description": "Where downloaded weights are kept."}
    )
    image_limits: ImageLimits = field(default_factory=ImageLimits)
