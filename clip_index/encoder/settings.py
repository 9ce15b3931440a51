"""The model that encodes and how it runs: plain values, which can be read without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from clip_index.encoder.image_headers import ImageLimits

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """A model and how to run it.

    `model` is one of open_clip's names (`ViT-B-32`), `hf-hub:owner/name`, a directory that holds
    `open_clip_config.json` and a safetensors file, or a safetensors file with that config beside it.
    `pretrained` is used only with a name: one of open_clip's tags, or a safetensors file.
    `precision` `auto` means bf16 if the processor multiplies bf16 natively. If `threads` is None,
    torch decides. `max_batch` is the most pictures (or windows of texts) in one pass.
    `cache_dir` keeps downloaded weights.
    """

    model: str = field(
        default="ViT-B-32",
        metadata={"description": "Model: a name of open_clip's, hf-hub:owner/name, a directory or a file."},
    )
    pretrained: str | None = field(
        default="laion2b_s34b_b79k",
        metadata={
            "description": "Weights of a model that is given by name: a tag of open_clip's, or a file."
        },
    )
    precision: Precision = field(
        default="auto",
        metadata={"description": "Number format: auto, fp32 or bf16; auto is bf16 if the processor has it."},
    )
    threads: int | None = field(
        default=None, metadata={"description": "Number of encoder threads; unset: torch's default."}
    )
    max_batch: int = field(
        default=32, metadata={"description": "Most pictures or text windows in one pass of the model."}
    )
    cache_dir: Path | None = field(
        default=None, metadata={"description": "Directory that keeps downloaded weights."}
    )
    image_limits: ImageLimits = field(default_factory=ImageLimits)
