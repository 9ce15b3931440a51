"""One garment's shape."""

from dataclasses import dataclass

from cliptide.demo.garments.outlines import Outline, Stroke


@dataclass(frozen=True, slots=True)
class Silhouette:
    """One garment: `body` carries the pattern, `trim` and `handles` are darker, `seams` fine lines.

    `holes` are cut out of the body and show what lies behind.
    """

    body: tuple[Outline, ...]
    trim: tuple[Outline, ...] = ()
    handles: tuple[Stroke, ...] = ()
    seams: tuple[Stroke, ...] = ()
    holes: tuple[Outline, ...] = ()
