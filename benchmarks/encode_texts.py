"""Encoding texts, tokenising included, against open_clip eager in fp32 with texts padded to 77 tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.clip_models import NaiveClip, cosines, write_production_model
from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, interleaved, median_ratio
from clip_index.content import Embeddings
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder, PreparedText
from clip_index.encoder.settings import EncoderSettings

NAME = "encode_texts"
_TARGETS = {1: 4.3, 32: 12.0}
_DIFFERENCE_TARGET = 1e-5
_VOCABULARY = (
    "a photo of the red dress on wooden table near window with blue shoes and leather bag "
    "worn by woman in garden at night small striped cotton shirt under soft light"
)


def measure(*, quick: bool) -> Figure:
    """Time ViT-B-32 with captions of mixed lengths, one by one (batch 1) and 32 in one call."""
    captions = write_captions(32)
    with tempfile.TemporaryDirectory() as directory:
        settings = write_production_model(Path(directory))
        encoder, naive = load_encoder(settings), NaiveClip(settings.model, settings.pretrained)
        exact = load_encoder(EncoderSettings(settings.model, settings.pretrained, precision="fp32"))
    rounds = 2 if quick else MIN_ROUNDS
    ratios = {size: _ratio(encoder, naive, captions, size, rounds) for size in _TARGETS}
    theirs = naive.encode_texts(captions)
    difference = float(np.abs(_encode(exact, captions) - theirs).max())
    cosine = float(cosines(_encode(encoder, captions), theirs).min())
    fast_enough = all(ratios[size].median >= target for size, target in _TARGETS.items())
    tokens = float(np.median([_num_tokens(encoder.prepare_text(caption)) for caption in captions]))
    return Figure(
        NAME,
        {f"batch {size}": round(ratio.median, 2) for size, ratio in ratios.items()},
        ", ".join(f"≥ {target} at batch {size}" for size, target in _TARGETS.items()),
        fast_enough and difference <= _DIFFERENCE_TARGET,
        {
            "ratios": {f"batch {size}": ratio.as_dict() for size, ratio in ratios.items()},
            "fp32_difference": difference,
            "least_cosine": round(cosine, 5),
            "median_tokens": tokens,
        },
        [(f"batch {size}: open_clip eager fp32 ÷ ours", str(ratio)) for size, ratio in ratios.items()]
        + [
            ("greatest difference in fp32", f"{difference:.1e}"),
            ("least cosine", f"{cosine:.5f}"),
            ("median tokens of a caption", f"{tokens:.0f}"),
        ],
    )


def write_captions(num_captions: int, seed: int = 0) -> list[str]:
    """Write phrases with a median length of 12 tokens, start and end tokens included."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.round(rng.lognormal(np.log(10.5), 0.5, num_captions)), 2, 60).astype(int)
    return [" ".join(rng.choice(_VOCABULARY.split(), length)) for length in lengths]


def _ratio(encoder: Encoder, naive: NaiveClip, captions: Sequence[str], size: int, rounds: int) -> Ratio:
    """Time rounds in which both sides encode the same captions: 8 calls of one, or one call of all."""
    chosen = captions[: max(8, size)]
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]

    def theirs() -> object:
        return [naive.encode_texts(batch) for batch in batches]

    def ours() -> object:
        return [_encode(encoder, batch) for batch in batches]

    return median_ratio(*interleaved(rounds, theirs, ours))


def _encode(encoder: Encoder, texts: Sequence[str]) -> Embeddings:
    return np.concatenate(encoder.encode([encoder.prepare_text(text) for text in texts]))


def _num_tokens(text: PreparedText) -> int:
    return int(np.count_nonzero(text.tokens))
