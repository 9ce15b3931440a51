"""The shapes of clothes, in garment coordinates."""

from cliptide.demo.garments.outlines import Silhouette, Stroke, both_outlines, both_sides, box, mirrored


def build_clothes() -> dict[str, Silhouette]:
    """Return the silhouettes by the garment's name."""
    return {
        "dress": _dress(),
        "t-shirt": _t_shirt(),
        "jumper": _jumper(),
        "coat": _coat(),
        "skirt": _skirt(),
        "trousers": _trousers(),
        "shorts": _shorts(),
    }


def _dress() -> Silhouette:
    return Silhouette(
        body=(
            mirrored(
                [
                    (0.0, -0.5),
                    (0.14, -0.56),
                    (0.2, -0.95),
                    (0.32, -0.95),
                    (0.36, -0.5),
                    (0.25, -0.06),
                    (0.52, 0.45),
                    (0.78, 0.88),
                    (0.4, 0.95),
                    (0.0, 0.96),
                ]
            ),
        ),
        trim=(box(-0.26, -0.1, 0.26, 0.01),),
        seams=both_sides(Stroke(((0.1, 0.05), (0.3, 0.9)))),
    )


def _t_shirt() -> Silhouette:
    return Silhouette(
        body=(
            mirrored(
                [
                    (0.0, -0.6),
                    (0.2, -0.74),
                    (0.48, -0.66),
                    (0.97, -0.28),
                    (0.76, 0.04),
                    (0.52, -0.14),
                    (0.52, 0.78),
                    (0.0, 0.8),
                ]
            ),
        ),
        handles=(Stroke(((-0.2, -0.74), (-0.1, -0.62), (0.0, -0.59), (0.1, -0.62), (0.2, -0.74)), 0.07),),
        seams=both_sides(Stroke(((0.46, -0.66), (0.52, -0.14))), Stroke(((0.0, 0.72), (0.52, 0.7)))),
    )


def _jumper() -> Silhouette:
    return Silhouette(
        body=(
            mirrored(
                [
                    (0.0, -0.72),
                    (0.24, -0.76),
                    (0.5, -0.66),
                    (0.68, -0.42),
                    (0.96, 0.6),
                    (0.72, 0.68),
                    (0.48, -0.06),
                    (0.48, 0.72),
                    (0.0, 0.72),
                ]
            ),
        ),
        trim=(
            box(-0.5, 0.6, 0.5, 0.76),
            *both_outlines(((0.92, 0.48), (0.98, 0.64), (0.73, 0.72), (0.67, 0.56))),
            mirrored([(0.0, -0.82), (0.2, -0.84), (0.26, -0.74), (0.0, -0.64)]),
        ),
        seams=both_sides(Stroke(((0.46, -0.66), (0.48, -0.06)))),
    )


def _coat() -> Silhouette:
    return Silhouette(
        body=(
            mirrored(
                [
                    (0.0, -0.86),
                    (0.2, -0.92),
                    (0.42, -0.8),
                    (0.56, -0.58),
                    (0.8, 0.16),
                    (0.6, 0.26),
                    (0.42, -0.22),
                    (0.42, 0.1),
                    (0.6, 0.95),
                    (0.0, 0.97),
                ]
            ),
        ),
        trim=(
            *both_outlines(((0.02, -0.34), (0.1, -0.92), (0.24, -0.94), (0.26, -0.6))),
            box(-0.42, 0.0, 0.42, 0.1),
        ),
        seams=(
            Stroke(((0.0, -0.36), (0.0, 0.97)), 0.035),
            *both_sides(Stroke(((0.42, -0.76), (0.42, -0.1))), Stroke(((0.22, 0.35), (0.4, 0.32)), 0.035)),
        ),
    )


def _skirt() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.56), (0.36, -0.56), (0.62, 0.1), (0.88, 0.6), (0.45, 0.7), (0.0, 0.72)]),),
        trim=(box(-0.37, -0.7, 0.37, -0.54),),
        seams=both_sides(Stroke(((0.12, -0.5), (0.24, 0.68))), Stroke(((0.25, -0.5), (0.56, 0.66)))),
    )


def _trousers() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.9), (0.4, -0.9), (0.48, -0.4), (0.54, 0.93), (0.18, 0.93), (0.0, -0.22)]),),
        trim=(box(-0.41, -0.95, 0.41, -0.84),),
        seams=(
            Stroke(((0.0, -0.84), (0.0, -0.24))),
            *both_sides(Stroke(((0.24, -0.82), (0.44, -0.6))), Stroke(((0.19, 0.86), (0.53, 0.86)))),
        ),
    )


def _shorts() -> Silhouette:
    return Silhouette(
        body=(mirrored([(0.0, -0.55), (0.54, -0.55), (0.82, 0.5), (0.12, 0.58), (0.0, 0.02)]),),
        trim=(box(-0.55, -0.64, 0.55, -0.48),),
        seams=(
            Stroke(((0.0, -0.48), (0.0, 0.02))),
            *both_sides(Stroke(((0.36, -0.48), (0.6, -0.2))), Stroke(((0.12, 0.49), (0.8, 0.42)))),
        ),
    )
