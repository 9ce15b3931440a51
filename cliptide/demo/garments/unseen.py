"""Garments that the demo's model was never trained on: other shapes, and words that it does not know."""

from __future__ import annotations

import random

from cliptide.demo.garments.captions import FRAMES
from cliptide.demo.garments.combinations import COLOURS, PATTERNS, Combination
from cliptide.demo.garments.outlines import Silhouette, Stroke, box, ellipse, mirrored

UNSEEN_GARMENTS = ("apron", "necktie", "kimono", "poncho", "fan", "crown", "pillow", "hoop")


def unseen_combinations() -> tuple[Combination, ...]:
    """Return every unseen garment in every colour and pattern that the model knows."""
    return tuple(Combination(g, c, p) for g in UNSEEN_GARMENTS for c in COLOURS for p in PATTERNS)


def write_unseen_caption(combination: Combination, rng: random.Random) -> str:
    """Write a caption that names garment, colour and pattern."""
    phrase = rng.choice(
        (
            f"{combination.pattern} {combination.colour} {combination.garment}",
            f"{combination.colour} {combination.pattern} {combination.garment}",
            f"{combination.pattern} {combination.garment} in {combination.colour}",
        )
    )
    return rng.choice(FRAMES).format(f"a {phrase}")


def build_unseen_silhouettes() -> dict[str, Silhouette]:
    """Return the silhouettes by the garment's name."""
    return {
        "apron": _apron(),
        "necktie": _necktie(),
        "kimono": _kimono(),
        "poncho": _poncho(),
        "fan": _fan(),
        "crown": _crown(),
        "pillow": _pillow(),
        "hoop": _hoop(),
    }


def _apron() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.6), (0.3, -0.6), (0.36, -0.2), (0.66, -0.05), (0.72, 0.9), (0.0, 0.92)]),),
        trim=(box(-0.3, 0.2, 0.3, 0.5),),
        handles=(
            Stroke(((-0.28, -0.58), (-0.16, -0.92), (0.16, -0.92), (0.28, -0.58)), 0.05),
            Stroke(((-0.64, -0.02), (-0.96, 0.1)), 0.05),
            Stroke(((0.64, -0.02), (0.96, 0.1)), 0.05),
        ),
    )


def _necktie() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.7), (0.12, -0.66), (0.34, 0.6), (0.0, 0.96)]),),
        trim=(mirrored([(0.0, -0.96), (0.22, -0.94), (0.12, -0.64), (0.0, -0.62)]),),
    )


def _kimono() -> Silhouette:
    return Silhouette(
        body=(
            mirrored(
                [(0.0, -0.76), (0.2, -0.86), (0.96, -0.7), (0.96, 0.1), (0.5, 0.1), (0.46, 0.92), (0.0, 0.92)]
            ),
        ),
        trim=(box(-0.5, -0.06, 0.5, 0.2),),
        seams=(Stroke(((-0.16, -0.84), (0.1, -0.1))), Stroke(((0.16, -0.84), (-0.1, -0.1)))),
    )


def _poncho() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.78), (0.2, -0.78), (0.98, 0.34), (0.0, 0.94)]),),
        trim=(ellipse((0.0, -0.74), 0.26, 0.1),),
    )


def _fan() -> Silhouette:
    return Silhouette(
        body=((*ellipse((0.0, 0.6), 0.98, 1.3, 200, 340), (0.12, 0.6), (-0.12, 0.6)),),
        trim=(box(-0.1, 0.56, 0.1, 0.92),),
        seams=tuple(Stroke(((0.0, 0.6), (x, -0.5))) for x in (-0.6, -0.3, 0.0, 0.3, 0.6)),
    )


def _crown() -> Silhouette:
    return Silhouette(
        body=(
            mirrored(
                [(0.0, -0.7), (0.24, -0.02), (0.56, -0.6), (0.6, 0.0), (0.94, -0.5), (0.8, 0.6), (0.0, 0.6)]
            ),
        ),
        trim=(mirrored([(0.0, 0.42), (0.84, 0.42), (0.8, 0.72), (0.0, 0.72)]),),
    )


def _pillow() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.62), (0.96, -0.74), (0.84, 0.0), (0.96, 0.74), (0.0, 0.62)]),),
        seams=(Stroke(((-0.74, -0.5), (0.74, -0.5))), Stroke(((-0.74, 0.5), (0.74, 0.5)))),
    )


def _hoop() -> Silhouette:
    return Silhouette(
        body=(ellipse((0.0, 0.0), 0.94, 0.94),),
        holes=(ellipse((0.0, 0.0), 0.56, 0.56),),
    )
