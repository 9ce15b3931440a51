"""CLIP by open_clip and torch, which live in this package alone; importing it loads both."""

from clip_index.encoder.open_clip.encoder import OpenClipEncoder, load_encoder

__all__ = ["OpenClipEncoder", "load_encoder"]
