"""Encoding pictures, against open_clip eager in fp32 with the same weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.clients.photographs import crop_images
from benchmarks.clip_models import NaiveClip, cosines, overlap_at_10, write_production_model
from benchmarks.figure import MIN_ROUNDS, Figure, interleaved, median_ratio
from clip_index.content import Embeddings
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder, PreparedImage
from clip_index.encoder.settings import EncoderSettings
from cliptide.demo.garments.catalogue import build_catalogue
from cliptide.demo.small_clip.model import write_model_directory

NAME = "encode_images"
_TARGET_WITH_AMX, _TARGET = 5.0, 1.15
_BATCH = 32
_COSINE_TARGET, _OVERLAP_TARGET = 0.999, 0.99


def measure(*, quick: bool) -> Figure:
    """Time ViT-B-32 with batches of 32 decoded pictures. Only our side includes normalising the pixels."""
    with tempfile.TemporaryDirectory() as directory:
        settings = write_production_model(Path(directory))
        encoder, naive = load_encoder(settings), NaiveClip(settings.model, settings.pretrained)
        trained_cosine, overlap = _compare_trained(Path(directory), num_pictures=50 if quick else 500)
    images = crop_images(_BATCH, 224)
    batch = naive.normalise(images)
    theirs, ours = interleaved(
        2 if quick else MIN_ROUNDS, lambda: naive.encode_images(batch), lambda: encoder.encode(images)
    )
    ratio = median_ratio(theirs, ours)
    cosine = float(cosines(_rows(encoder, images), naive.encode_images(batch)).min())
    target = _TARGET_WITH_AMX if _has_amx() else _TARGET
    is_faithful = min(cosine, trained_cosine) >= _COSINE_TARGET and overlap >= _OVERLAP_TARGET
    return Figure(
        NAME,
        round(ratio.median, 2),
        f"≥ {target}",
        ratio.median >= target and is_faithful,
        {
            "ratio": ratio.as_dict(),
            "images_per_second": round(_BATCH / float(np.median(ours)), 1),
            "least_cosine": round(cosine, 5),
            "least_cosine_trained": round(trained_cosine, 5),
            "overlap_at_10_trained": round(overlap, 4),
            "has_amx": _has_amx(),
        },
        [
            ("open_clip eager fp32 ÷ ours", str(ratio)),
            ("least cosine, random weights", f"{cosine:.5f}"),
            ("least cosine, trained demo model", f"{trained_cosine:.5f}"),
            ("overlap of the ten best, trained demo model", f"{overlap:.4f}"),
        ],
    )


def _compare_trained(directory: Path, num_pictures: int) -> tuple[float, float]:
    """Return the smallest cosine, and the mean overlap of the ten pictures nearest to each picture."""
    model = str(write_model_directory(directory / "demo"))
    encoder, naive = load_encoder(EncoderSettings(model)), NaiveClip(f"local-dir:{model}")
    contents = build_catalogue(num_pictures, 0, seed=1)
    images = [encoder.prepare_image(content.image_bytes()) for content in contents]
    ours, theirs = _rows(encoder, images), naive.encode_images(naive.normalise(images))
    return float(cosines(ours, theirs).min()), overlap_at_10(ours, theirs)


def _rows(encoder: Encoder, images: list[PreparedImage]) -> Embeddings:
    return np.concatenate(encoder.encode(images))


def _has_amx() -> bool:
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.is_file() and "amx_bf16" in cpu_info.read_text().split()
