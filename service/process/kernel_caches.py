"""How many of oneDNN's kernels a process keeps. torch multiplies with them."""

from __future__ import annotations

from collections.abc import MutableMapping

_PRIMITIVES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY")
_DESCRIPTIONS = "LRU_CACHE_CAPACITY"
NUM_PRIMITIVES, NUM_DESCRIPTIONS = 256, 128
"""A layer of one number of rows is two primitives for oneDNN and one description for torch, about 0.4 MB.

Both libraries keep 1,024 by default. With ViT-B-32 and queries of all lengths, singly and in batches, and
batches of 1 to 16 pictures, a process grew by 164 MB; with these numbers it grows by 59 MB, and encoding
takes as long. With half as many, single queries took 15 % more CPU time, because their kernels were compiled
again and again (0.35 ms each)."""


def bound_kernel_caches(environment: MutableMapping[str, str]) -> None:
    """Keep fewer kernels, unless the operator has chosen a number. Call it before torch is imported."""
    if not any(name in environment for name in _PRIMITIVES):
        environment[_PRIMITIVES[0]] = str(NUM_PRIMITIVES)
    environment.setdefault(_DESCRIPTIONS, str(NUM_DESCRIPTIONS))
