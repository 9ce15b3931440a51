"""How a garment is turned, scaled and shifted on its picture."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cliptide.demo.garments.outlines import Outline

Field = npt.NDArray[np.float32]  # masks (height, width), planes (3, height, width), colours (3,): 0 … 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Turns, scales and shifts a garment. The unit is half the picture's side; angles are radians."""

    angle: float
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    def to_pixels(self, outline: Outline, size: int) -> list[tuple[float, float]]:
        """Convert garment coordinates in [-1, 1] to pixels of a square picture."""
        cos, sin, half = math.cos(self.angle), math.sin(self.angle), size / 2
        scaled = [(x * self.scale_x, y * self.scale_y) for x, y in outline]
        return [
            (half * (1 + x * cos - y * sin + self.shift_x), half * (1 + x * sin + y * cos + self.shift_y))
            for x, y in scaled
        ]

    def garment_grid(self, size: int) -> tuple[Field, Field]:
        """Return the garment coordinates of every pixel, as two arrays (size, size)."""
        steps = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
        x, y = np.meshgrid(steps - np.float32(self.shift_x), steps - np.float32(self.shift_y))
        cos, sin = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        return (x * cos + y * sin) / np.float32(self.scale_x), (y * cos - x * sin) / np.float32(self.scale_y)


def random_placement(rng: np.random.Generator) -> Placement:
    scale = rng.uniform(0.66, 0.86)
    return Placement(
        angle=rng.uniform(-0.3, 0.3),
        scale_x=scale * rng.uniform(0.92, 1.08) * rng.choice((-1.0, 1.0)),
        scale_y=scale * rng.uniform(0.94, 1.06),
        shift_x=rng.uniform(-0.1, 0.1),
        shift_y=rng.uniform(-0.1, 0.1),
    )
