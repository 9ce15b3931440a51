"""Decoding and preprocessing a JPEG photograph, against a full decode with open_clip's own transform."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.clients.photographs import build_jpeg
from benchmarks.clip_models import NaiveClip, cosines, write_production_model
from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, interleaved, median_ratio
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from cliptide.demo.small_clip.model import write_model_directory

NAME = "decode"
_TARGETS = {"12 MP": 4.5, "3 MP": 2.3, "0.8 MP": 1.1}
_SIZES = {"12 MP": (4000, 3000), "3 MP": (2048, 1536), "0.8 MP": (1024, 768)}
_COSINE_TARGET = 0.995


@dataclass(frozen=True, slots=True)
class _Side:
    """Our encoder and the naive one, with the same weights."""

    ours: Encoder
    naive: NaiveClip


def measure(*, quick: bool) -> Figure:
    """Time one photograph a call, in one thread, at ViT-B-32's 224 pixels; both sides embed in fp32."""
    rounds = 3 if quick else 3 * MIN_ROUNDS
    pictures = {name: build_jpeg(*size) for name, size in _SIZES.items()}
    with tempfile.TemporaryDirectory() as directory:
        production, demo = _production(Path(directory)), _demo(Path(directory))
    ratios = {name: _ratio(production, data, rounds) for name, data in pictures.items()}
    differences = {name: _pixel_difference(production, data) for name, data in pictures.items()}
    least_cosine = min(_cosine(side, data) for side in (production, demo) for data in pictures.values())
    holds = all(ratios[name].median >= _TARGETS[name] for name in _SIZES) and least_cosine >= _COSINE_TARGET
    return Figure(
        NAME,
        {name: round(ratio.median, 2) for name, ratio in ratios.items()},
        ", ".join(f"≥ {target} at {name}" for name, target in _TARGETS.items()),
        holds,
        {
            "ratios": {name: ratio.as_dict() for name, ratio in ratios.items()},
            "mean_pixel_difference": differences,
            "least_embedding_cosine": round(least_cosine, 5),
            "pictures": "tiled from scikit-image's photographs, quality 90, 4:2:0",
        },
        [("picture", "naive ÷ ours", "mean pixel difference of 255")]
        + [(name, str(ratios[name]), f"{differences[name]:.2f}") for name in _SIZES]
        + [("least embedding cosine", f"{least_cosine:.5f}", "")],
    )


def _production(directory: Path) -> _Side:
    settings = write_production_model(directory)
    return _Side(_load(settings), NaiveClip(settings.model, settings.pretrained))


def _demo(directory: Path) -> _Side:
    model = write_model_directory(directory / "demo")
    return _Side(_load(EncoderSettings(str(model))), NaiveClip(f"local-dir:{model}"))


def _load(settings: EncoderSettings) -> Encoder:
    return load_encoder(EncoderSettings(settings.model, settings.pretrained, precision="fp32"))


def _ratio(side: _Side, data: bytes, rounds: int) -> Ratio:
    def naive() -> object:
        return side.naive.preprocess(Image.open(io.BytesIO(data)))

    return median_ratio(*interleaved(rounds, naive, lambda: side.ours.prepare_image(data), num_warm_ups=2))


def _pixel_difference(side: _Side, data: bytes) -> float:
    theirs = side.naive.preprocess(Image.open(io.BytesIO(data)))
    ours = side.naive.normalise([side.ours.prepare_image(data)])[0]
    return round(float(((ours - theirs) * side.naive.std).abs().mean()) * 255, 3)


def _cosine(side: _Side, data: bytes) -> float:
    theirs = side.naive.encode_images(side.naive.preprocess(Image.open(io.BytesIO(data)))[None])
    ours = side.ours.encode([side.ours.prepare_image(data)])[0]
    return float(cosines(ours, theirs)[0])
