"""The cloth of a garment: a shade of its colour, and a pattern in a second colour."""

import colorsys
import math

import numpy as np

from cliptide.demo.garments.placement import Field, Placement

_CREAM = (0.98, 0.96, 0.91)
_BASE_COLOURS = {
    "red": (0.80, 0.10, 0.14),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.97, 0.84, 0.18),
    "green": (0.18, 0.56, 0.22),
    "teal": (0.05, 0.58, 0.58),
    "blue": (0.13, 0.27, 0.80),
    "purple": (0.46, 0.16, 0.62),
    "pink": (0.97, 0.58, 0.74),
    "brown": (0.43, 0.25, 0.13),
    "black": (0.10, 0.10, 0.12),
    "white": (0.96, 0.96, 0.95),
    "grey": (0.52, 0.53, 0.55),
}


def cloth_colour(name: str, rng: np.random.Generator) -> Field:
    """Choose a shade (3,) of the named colour."""
    hue, saturation, value = colorsys.rgb_to_hsv(*_BASE_COLOURS[name])
    hue += rng.uniform(-0.012, 0.012)
    saturation = min(1.0, saturation * rng.uniform(0.9, 1.08))
    value = min(1.0, value * rng.uniform(0.92, 1.06))
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def trim_colour(cloth: Field) -> Field:
    """Return a darker colour than the cloth, or a lighter one if the cloth is nearly black."""
    colour: Field = cloth * np.float32(0.7) if _luminance(cloth) > 0.2 else cloth + np.float32(0.14)
    return colour


def contrast_colour(cloth: Field) -> Field:
    """Return a pattern's second colour: cream on dark cloth, a deep shade of the same hue on light cloth."""
    if _luminance(cloth) < 0.6:
        return np.array(_CREAM, dtype=np.float32)
    deep: Field = cloth * np.float32(0.3)
    return deep


def _luminance(rgb: Field) -> float:
    return float(rgb @ np.array((0.3, 0.59, 0.11), dtype=np.float32))


def woven(pattern: str, placement: Placement, rng: np.random.Generator, size: int) -> Field:
    """Return each pixel's share of the second colour. The pattern turns with the garment."""
    u, v, softness = _thread_grid(placement, rng, size)
    if pattern == "striped":
        return _bands(v, rng.uniform(0.36, 0.46), softness)
    if pattern == "dotted":
        return _dots(u, v, rng.uniform(0.29, 0.34), softness)
    width = rng.uniform(0.44, 0.5)
    checks: Field = (_bands(u, width, softness) + _bands(v, width, softness)) * np.float32(0.5)
    return checks


def _thread_grid(placement: Placement, rng: np.random.Generator, size: int) -> tuple[Field, Field, float]:
    """Return every pixel's cloth coordinates, in repeats of the pattern, and the size of a pixel in them."""
    period = rng.uniform(0.27, 0.38)
    angle = rng.choice((0.0, 0.0, math.pi / 2, math.pi / 4)) + rng.uniform(-0.1, 0.1)
    x, y = placement.garment_grid(size)
    cos, sin = np.float32(math.cos(angle) / period), np.float32(math.sin(angle) / period)
    phase_u, phase_v = (np.float32(p) for p in rng.uniform(0, 1, 2))
    return x * cos + y * sin + phase_u, y * cos - x * sin + phase_v, 2 / size / period / placement.scale_y


def _bands(position: Field, width: float, softness: float) -> Field:
    """Return 1 inside the bands and 0 between them. A band takes the share `width` of each repeat."""
    from_middle = np.abs(position - np.floor(position) - np.float32(0.5))
    return _soft_step(np.float32(width / 2) - from_middle, softness)


def _dots(u: Field, v: Field, radius: float, softness: float) -> Field:
    """Return 1 inside the dots and 0 between them. Every second row is shifted by half a repeat."""
    row = np.floor(v)
    shifted = u + np.float32(0.5) * (row % 2)
    from_u, from_v = shifted - np.floor(shifted) - np.float32(0.5), v - row - np.float32(0.5)
    return _soft_step(np.float32(radius) - np.sqrt(from_u**2 + from_v**2), softness)


def _soft_step(distance: Field, softness: float) -> Field:
    step: Field = np.clip(distance / np.float32(softness) + np.float32(0.5), 0, 1)
    return step
