"""A CLIP with random weights, small enough to be written and loaded by a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file


def tiny_config(
    *, vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **model: Any
) -> dict[str, Any]:
    """Return a `model_cfg` with 32-pixel images, two layers, 16 dimensions; arguments override it."""
    vision_cfg = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
    text_cfg = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    return {
        "embed_dim": 16,
        "vision_cfg": vision_cfg | (vision or {}),
        "text_cfg": text_cfg | (text or {}),
        **model,
    }


def write_tiny_clip(
    directory: Path, config: dict[str, Any], *, seed: int = 0, preprocessing: dict[str, Any] | None = None
) -> Path:
    """Write a model for `EncoderSettings(model=str(directory))`. Another seed gives other weights."""
    directory.mkdir(parents=True, exist_ok=True)
    description = {"model_cfg": config, "preprocess_cfg": preprocessing or {}}
    (directory / "open_clip_config.json").write_text(json.dumps(description))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = open_clip.create_model(f"local-dir:{directory}", load_weights=False)
    save_file(module.state_dict(), directory / "open_clip_model.safetensors")
    return directory
