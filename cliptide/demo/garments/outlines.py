"""The shapes of garments, in garment coordinates: x to the right and y downwards, both within [-1, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Outline = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line of the given width through points."""

    points: Outline
    width: float = 0.025


@dataclass(frozen=True, slots=True)
class Silhouette:
    """The shape of one garment.

    The body carries the pattern. Trim and handles are drawn darker, seams as fine lines. Holes are cut
    out of the body, so that the background shows through them.
    """

    body: tuple[Outline, ...]
    trim: tuple[Outline, ...] = ()
    handles: tuple[Stroke, ...] = ()
    seams: tuple[Stroke, ...] = ()
    holes: tuple[Outline, ...] = ()


def mirrored(right_half: Sequence[Point]) -> Outline:
    """Complete a symmetric outline, whose right half runs from the top to the bottom."""
    left_half = [(-x, y) for x, y in reversed(right_half) if x > 0]
    return (*right_half, *left_half)


def ellipse(
    centre: Point, radius_x: float, radius_y: float, from_degrees: float = 0.0, to_degrees: float = 360.0
) -> Outline:
    """Return points along an ellipse, clockwise on the picture, from three o'clock on."""
    num_points = 28
    angles = [
        math.radians(from_degrees + (to_degrees - from_degrees) * i / num_points)
        for i in range(num_points + 1)
    ]
    return tuple((centre[0] + radius_x * math.cos(a), centre[1] + radius_y * math.sin(a)) for a in angles)


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def both_sides(*strokes: Stroke) -> tuple[Stroke, ...]:
    """Return the strokes and their mirror images."""
    reflected = tuple(Stroke(tuple((-x, y) for x, y in s.points), s.width) for s in strokes)
    return strokes + reflected


def both_outlines(outline: Outline) -> tuple[Outline, Outline]:
    """Return the outline and its mirror image."""
    return outline, tuple((-x, y) for x, y in outline)


def rounded(outline: Outline, radius: float) -> Outline:
    """Replace the corners by short curves, none of which is longer than half an edge."""
    points: list[Point] = []
    for i, corner in enumerate(outline):
        before, after = outline[i - 1], outline[(i + 1) % len(outline)]
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        points.extend(_curve(start, corner, end, t / 4) for t in range(5))
    return tuple(points)


def _towards(origin: Point, target: Point, distance: float) -> Point:
    length = math.dist(origin, target)
    share = min(0.5, distance / length) if length else 0.0
    return origin[0] + (target[0] - origin[0]) * share, origin[1] + (target[1] - origin[1]) * share


def _curve(start: Point, control: Point, end: Point, t: float) -> Point:
    a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
    return a * start[0] + b * control[0] + c * end[0], a * start[1] + b * control[1] + c * end[1]
