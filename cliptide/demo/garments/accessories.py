"""The shapes of accessories, in garment coordinates."""

from cliptide.demo.garments.outlines import (
    Silhouette,
    Stroke,
    both_outlines,
    both_sides,
    box,
    ellipse,
    mirrored,
)


def build_accessories() -> dict[str, Silhouette]:
    """Return the silhouettes by the garment's name."""
    return {
        "scarf": _scarf(),
        "handbag": _handbag(),
        "backpack": _backpack(),
        "mitten": _mitten(),
        "bow tie": _bow_tie(),
        "umbrella": _umbrella(),
    }


def _scarf() -> Silhouette:
    return Silhouette(
        body=(
            ellipse((0.0, -0.5), 0.66, 0.42),
            ((-0.5, -0.4), (-0.06, -0.3), (-0.1, 0.86), (-0.52, 0.86)),
            ((0.0, -0.3), (0.42, -0.34), (0.6, 0.52), (0.18, 0.58)),
        ),
        holes=(ellipse((0.0, -0.64), 0.36, 0.15),),
        seams=(
            Stroke(((-0.52, 0.78), (-0.1, 0.78)), 0.05),
            Stroke(((0.16, 0.5), (0.59, 0.44)), 0.05),
            Stroke(((-0.44, -0.24), (-0.02, -0.3), (0.4, -0.24)), 0.03),
        ),
    )


def _handbag() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.16), (0.68, -0.16), (0.88, 0.8), (0.0, 0.82)]),),
        trim=(ellipse((0.0, 0.24), 0.09, 0.09),),
        handles=(Stroke(ellipse((0.0, -0.16), 0.44, 0.62, 180, 360), 0.1),),
        seams=(Stroke(((-0.74, 0.1), (0.0, 0.26), (0.74, 0.1)), 0.035),),
    )


def _backpack() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.74), (0.38, -0.72), (0.6, -0.36), (0.66, 0.84), (0.0, 0.88)]),),
        trim=(*both_outlines(box(0.62, 0.22, 0.82, 0.78)), box(-0.4, 0.16, 0.4, 0.28)),
        handles=(Stroke(ellipse((0.0, -0.74), 0.18, 0.18, 180, 360), 0.08),),
        seams=(
            Stroke(((-0.42, 0.2), (-0.42, 0.72), (0.42, 0.72), (0.42, 0.2)), 0.04),
            Stroke(((-0.56, -0.22), (0.0, -0.3), (0.56, -0.22)), 0.04),
        ),
    )


def _mitten() -> Silhouette:
    return Silhouette(
        body=(
            (
                *ellipse((-0.08, -0.36), 0.44, 0.56, 180, 360),
                (0.38, 0.0),
                (0.56, -0.24),
                (0.78, -0.26),
                (0.84, -0.04),
                (0.56, 0.36),
                (0.34, 0.7),
                (-0.5, 0.7),
            ),
        ),
        trim=(box(-0.56, 0.62, 0.4, 0.94),),
        seams=(
            Stroke(
                ((0.38, -0.02), (0.3, 0.3)),
            ),
        ),
    )


def _bow_tie() -> Silhouette:
    return Silhouette(
        body=both_outlines(
            (
                (0.08, -0.12),
                (0.5, -0.42),
                (0.96, -0.46),
                (0.9, 0.0),
                (0.96, 0.46),
                (0.5, 0.42),
                (0.08, 0.12),
            )
        ),
        trim=(box(-0.17, -0.2, 0.17, 0.2),),
        seams=both_sides(Stroke(((0.2, -0.06), (0.52, -0.14))), Stroke(((0.2, 0.06), (0.52, 0.14)))),
    )


def _umbrella() -> Silhouette:
    return Silhouette(
        body=(
            (
                *ellipse((0.0, 0.1), 0.95, 0.92, 180, 360),
                (0.64, -0.02),
                (0.32, 0.1),
                (0.0, -0.02),
                (-0.32, 0.1),
                (-0.64, -0.02),
            ),
        ),
        handles=(
            Stroke(((0.0, 0.0), (0.0, 0.78), (0.06, 0.9), (0.18, 0.92), (0.28, 0.8)), 0.08),
            Stroke(((0.0, -0.96), (0.0, -0.8)), 0.06),
        ),
        seams=(
            *both_sides(Stroke(((0.0, -0.82), (0.22, -0.5), (0.32, 0.08)))),
            Stroke(((0.0, -0.82), (0.0, 0.0))),
        ),
    )
