"""Models to measure encoders with: a production-size one with random weights, and the trained demo model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from clip_index.content import Embeddings
from clip_index.encoder.protocol import PreparedImage
from clip_index.encoder.settings import EncoderSettings
from fakes.tiny_clip import tiny_config, write_tiny_clip

PRODUCTION_NAME = "ViT-B-32"


class NaiveClip:
    """What a simple CLIP service does: open_clip eager in fp32, texts padded to 77 tokens."""

    def __init__(self, name: str, weights: str | None = None) -> None:
        self._model: Any = open_clip.create_model(name, weights, load_weights=True).eval()
        self._tokenizer = open_clip.get_tokenizer(name)
        config = PreprocessCfg(**self._model.visual.preprocess_cfg)
        self.preprocess: Callable[[Image.Image], torch.Tensor] = image_transform_v2(config, False)
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))

    def normalise(self, images: Sequence[PreparedImage]) -> torch.Tensor:
        """Return pixels as the model's float32 input (n, 3, height, width)."""
        pixels = torch.from_numpy(np.stack([image.pixels for image in images]))
        return ((pixels.permute(0, 3, 1, 2) / 255 - self.mean) / self.std).contiguous()

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> Embeddings:
        return as_rows(self._model.encode_image(batch))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return as_rows(self._model.encode_text(self._tokenizer(list(texts))))


def as_rows(embeddings: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(functional.normalize(embeddings, dim=-1), dtype=np.float32)


def write_production_model(directory: Path, seed: int = 0) -> EncoderSettings:
    """Write ViT-B-32 with random weights. Speed does not depend on weights, and none are downloaded."""
    torch.manual_seed(seed)
    weights = directory / "vit_b_32.safetensors"
    save_file(open_clip.create_model(PRODUCTION_NAME).state_dict(), weights)
    return EncoderSettings(model=PRODUCTION_NAME, pretrained=str(weights))


def write_model(directory: Path, *, quick: bool) -> EncoderSettings:
    """Write the production model, or for a quick run two layers that return as many dimensions."""
    if not quick:
        return write_production_model(directory)
    return EncoderSettings(str(write_tiny_clip(directory / "tiny", tiny_config(embed_dim=512))), None)


def cosines(ours: Embeddings, theirs: Embeddings) -> NDArray[np.float32]:
    """Return the cosine of each row of one side with the same row of the other."""
    return np.asarray((ours * theirs).sum(axis=1), dtype=np.float32)


def overlap_at_10(ours: Embeddings, theirs: Embeddings) -> float:
    """Return the mean share of the ten nearest neighbours that both sides find for the same row."""

    def nearest(rows: Embeddings) -> NDArray[np.int64]:
        scores = rows @ rows.T
        np.fill_diagonal(scores, -np.inf)
        return np.argsort(-scores, axis=1)[:, :10]

    pairs = zip(nearest(ours), nearest(theirs), strict=True)
    return float(np.mean([len(set(one) & set(other)) / 10 for one, other in pairs]))
