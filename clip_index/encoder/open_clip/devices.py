"""What this machine has to encode with."""

from __future__ import annotations

import torch

from clip_index.encoder.settings import EncoderSettings, Precision
from clip_index.errors import EncoderUnavailable


def find_device(settings: EncoderSettings) -> torch.device:
    """Return torch's device. Raises `EncoderUnavailable` if a GPU is asked for that is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise EncoderUnavailable(
            settings.model, "CLIPTIDE_ENCODER__DEVICE is cuda, and torch finds no GPU: set it to cpu"
        )
    return torch.device(settings.device)


def gpu_format(precision: Precision) -> torch.dtype:
    """Return the number format of a GPU: by default bf16, or fp16 where it has no circuits for bf16."""
    if precision == "fp32":
        return torch.float32
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if precision == "bf16" or has_bf16 else torch.float16


def describe_processor() -> str:
    """Name the processor as what the encoder runs on."""
    number = torch.get_num_threads()
    return f"the processor, {number} thread{'s' * (number != 1)}"


def names_of_gpus() -> list[str]:
    """Name the GPUs that torch could use."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
