"""What this machine has to encode with."""

from __future__ import annotations

import torch


def describe_processor() -> str:
    """Name what the encoder runs on."""
    number = torch.get_num_threads()
    return f"the processor, {number} thread{'s' * (number != 1)}"


def names_of_gpus() -> list[str]:
    """Name the GPUs that torch could use. The encoder does not use them."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
