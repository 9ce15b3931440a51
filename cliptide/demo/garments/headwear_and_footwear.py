"""What is worn on head and feet, in garment coordinates."""

from cliptide.demo.garments.outlines import Stroke, box, ellipse, mirrored
from cliptide.demo.silhouette import Silhouette


def build_headwear_and_footwear() -> dict[str, Silhouette]:
    """Silhouettes by the garment's name."""
    return {
        "hat": _hat(),
        "cap": _cap(),
        "sock": _sock(),
        "boot": _boot(),
        "sneaker": _sneaker(),
    }


def _hat() -> Silhouette:
    return Silhouette(
        body=(
            ellipse((0.0, 0.34), 0.98, 0.24),
            mirrored([(0.0, -0.52), (0.16, -0.62), (0.42, -0.52), (0.52, 0.3), (0.0, 0.4)]),
        ),
        trim=(mirrored([(0.0, 0.16), (0.49, 0.06), (0.53, 0.24), (0.0, 0.35)]),),
    )


def _cap() -> Silhouette:
    return Silhouette(
        body=((*ellipse((-0.18, 0.2), 0.66, 0.72, 180, 360), (0.48, 0.3), (-0.2, 0.36), (-0.84, 0.3)),),
        trim=(
            ((0.3, 0.12), (0.62, 0.14), (0.98, 0.34), (0.96, 0.46), (0.6, 0.4), (0.2, 0.36)),
            ellipse((-0.18, -0.53), 0.07, 0.05),
        ),
        seams=(
            Stroke(((-0.18, -0.5), (-0.4, -0.1), (-0.46, 0.32))),
            Stroke(((-0.18, -0.5), (0.06, -0.1), (0.12, 0.32))),
        ),
    )


def _sock() -> Silhouette:
    return Silhouette(
        body=(
            (
                (-0.42, -0.92),
                (0.12, -0.92),
                (0.14, 0.2),
                (0.6, 0.46),
                (0.8, 0.66),
                (0.74, 0.88),
                (0.5, 0.94),
                (0.1, 0.82),
                (-0.34, 0.56),
                (-0.44, 0.3),
            ),
        ),
        trim=(
            box(-0.44, -0.94, 0.14, -0.74),
            ((0.6, 0.44), (0.82, 0.64), (0.76, 0.9), (0.5, 0.96), (0.42, 0.7)),
        ),
    )


def _boot() -> Silhouette:
    return Silhouette(
        body=(
            (
                (-0.6, -0.82),
                (0.08, -0.82),
                (0.08, 0.08),
                (0.56, 0.22),
                (0.8, 0.46),
                (0.8, 0.66),
                (-0.6, 0.66),
            ),
        ),
        trim=(
            ((-0.64, 0.6), (0.86, 0.6), (0.86, 0.76), (-0.2, 0.76), (-0.2, 0.92), (-0.64, 0.92)),
            box(-0.63, -0.9, 0.11, -0.74),
        ),
        seams=(
            Stroke(((-0.26, -0.74), (-0.26, 0.2), (0.1, 0.4), (0.3, 0.62))),
            Stroke(((-0.6, 0.1), (0.08, 0.08))),
        ),
    )


def _sneaker() -> Silhouette:
    return Silhouette(
        body=(
            (
                (-0.92, 0.34),
                (-0.92, -0.38),
                (-0.72, -0.46),
                (-0.56, -0.24),
                (-0.3, -0.3),
                (-0.06, -0.52),
                (0.1, -0.44),
                (0.42, -0.08),
                (0.8, 0.06),
                (0.95, 0.34),
            ),
        ),
        trim=(((-0.96, 0.28), (0.98, 0.28), (0.96, 0.5), (0.8, 0.54), (-0.94, 0.54)),),
        seams=(
            Stroke(((-0.18, -0.16), (0.16, -0.36)), 0.05),
            Stroke(((-0.04, -0.02), (0.28, -0.22)), 0.05),
            Stroke(((0.12, 0.1), (0.42, -0.08)), 0.05),
        ),
    )
