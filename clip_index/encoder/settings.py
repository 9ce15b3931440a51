"""The model that encodes and how it runs: plain values, which can be read without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.picture_crops import GREATEST_MAX_CROPS

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Device: TypeAlias = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """A model and how to run it.

    `model` is one of open_clip's names (`ViT-B-32`), `hf-hub:owner/name`, a directory that holds
    `open_clip_config.json` and a safetensors file, or a safetensors file with that config beside it.
    `pretrained` is used only with a name: one of open_clip's tags, or a safetensors file.
    `precision` `auto` means bf16 if the processor multiplies bf16 natively; a GPU without bf16 gets fp16.
    `device` `cuda` is torch's first GPU. If `threads` is None, torch decides. `max_batch` is the most
    crops of pictures (or windows of texts) in one pass, and the size of each pass of a GPU.
    `max_crops` is the most crops of one picture. If it is None, an index keeps the number that it was
    created with, and a new one has 3.
    `cache_dir` keeps downloaded weights. `shared_weights` keeps them as the processor reads them.
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
    device: Device = field(default="cpu", metadata={"description": "What computes: cpu, or cuda for a GPU."})
    threads: int | None = field(
        default=None, metadata={"description": "Number of encoder threads; unset: torch's default."}
    )
    max_batch: int = field(
        default=32,
        metadata={
            "description": "Most crops of pictures, or windows of texts, in one pass; on a GPU its size."
        },
    )
    cache_dir: Path | None = field(
        default=None, metadata={"description": "Directory that keeps downloaded weights."}
    )
    shared_weights: Path | None = field(
        default=None,
        metadata={
            "description": "Directory on a disk of this machine that keeps weights as the processor reads "
            "them. Processes with the same directory and model then hold them in memory once, and the system "
            "may drop what nobody reads. Unset: each process holds its own."
        },
    )
    max_crops: int | None = field(
        default=None,
        metadata={
            "description": "Most crops of a picture whose sides differ by more than 1.8, from 1 to 9. Each "
            "is an embedding of its own. Unset: the number that the index was created with, 3 for a new one. "
            "An even number counts as the odd one before it."
        },
    )
    image_limits: ImageLimits = field(default_factory=ImageLimits)

    def __post_init__(self) -> None:
        if self.max_crops is not None and not 1 <= self.max_crops <= GREATEST_MAX_CROPS:
            raise ValueError(
                f"CLIPTIDE_ENCODER__MAX_CROPS must be 1 to {GREATEST_MAX_CROPS}, not {self.max_crops}"
            )
