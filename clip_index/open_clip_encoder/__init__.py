"""CLIP by open_clip and torch, which live in this package alone; importing it loads both."""

from clip_index.open_clip_encoder.encoder import OpenClipEncoder, load_encoder

__all__ = ["OpenClipEncoder", "load_encoder"]
