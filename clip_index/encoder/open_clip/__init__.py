"""CLIP by open_clip and torch; importing it loads both. Beside it only `image_resampling` uses torch."""

from clip_index.encoder.open_clip.deferred_imports import deferred_imports

with deferred_imports():
    from clip_index.encoder.open_clip.downloads import Download, find_download, weigh_model
    from clip_index.encoder.open_clip.encoder import OpenClipEncoder, load_encoder

__all__ = ["Download", "OpenClipEncoder", "find_download", "load_encoder", "weigh_model"]
