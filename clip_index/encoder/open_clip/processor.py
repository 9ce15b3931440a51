"""What the processor can do with numbers in bf16. Its flags tell, as Linux describes them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
_TILES, _VECTORS = "amx_bf16", "avx512_bf16"


def multiplies_bf16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the processor has bf16 instructions. Without them bf16 is emulated, slower than fp32."""
    return not {_TILES, _VECTORS}.isdisjoint(_flags(cpu_info))


def attends_slowly(cpu_info: Path = CPU_INFO) -> bool:
    """Whether torch's attention in bf16 takes longer than the same as products of matrices.

    It does on processors with bf16 instructions and without AMX.
    """
    flags = _flags(cpu_info)
    return _VECTORS in flags and _TILES not in flags


def _flags(cpu_info: Path) -> frozenset[str]:
    """Return the flags; none if torch leaves oneDNN unused, which multiplies in bf16."""
    return _read_flags(cpu_info) if torch.backends.mkldnn.enabled else frozenset()


@cache  # each layer of a model asks, and with many processors Linux takes milliseconds to write the file
def _read_flags(cpu_info: Path) -> frozenset[str]:
    if not cpu_info.is_file():
        return frozenset()
    flags = next((line for line in cpu_info.read_text().splitlines() if line.startswith("flags")), "")
    return frozenset(flags.split())
