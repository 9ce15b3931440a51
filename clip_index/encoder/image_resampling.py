"""Resamples a part of a picture: by torch where it is quicker, else by Pillow.

Both use the same filters with antialiasing, and their pixels differ by rounding alone: by 1 of 255, rarely
by 2. They differ by more only where a filter overshoots and Pillow resamples along the columns first, to
save time. torch never does, nor does Pillow for a whole picture that keeps its shape, as open_clip asks for.

torch takes half the time for RGB pictures where the processor has AVX2. It resamples whole pictures only, so
Pillow takes those of which little is shown, and those so large that Pillow reduces them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Interpolation: TypeAlias = Literal["bicubic", "bilinear"]
Size: TypeAlias = tuple[int, int]
Extent: TypeAlias = tuple[float, float]

_REDUCING_GAP = 3.0  # Pillow: "close to fair resampling" from 3.0 on, and much faster for big pictures
_MOST_UNSEEN = 2.0  # times the pixels that are shown may be resampled
_QUICK_PROCESSORS = ("AVX2", "AVX512")  # as torch names them


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture after scaling: the picture's `scaled` size, where the part begins, and its size."""

    scaled: Size
    corner: Size
    size: Size

    @classmethod
    def whole(cls, size: Size) -> Window:
        return cls(size, (0, 0), size)


def resample_rgb(
    image: Image.Image, extent: Extent, window: Window, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Scale an RGB picture, and return the part that the window shows: (height, width, 3).

    `extent` is the size of the picture inside the image: its upper left corner, at most all of it.
    """
    if _is_for_torch(image, extent, window):
        return _resample_by_torch(image, extent, window, interpolation)
    return np.array(resample(image, extent, window, interpolation))


def resample(image: Image.Image, extent: Extent, window: Window, interpolation: Interpolation) -> Image.Image:
    """Do the same by Pillow: for an image of any plain mode, and without torch, which loads in seconds."""
    (left, top), (width, height) = window.corner, window.size
    scale_x, scale_y = extent[0] / window.scaled[0], extent[1] / window.scaled[1]
    box = (left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y)
    return image.resize(window.size, Image.Resampling[interpolation.upper()], box, _REDUCING_GAP)


def _is_for_torch(image: Image.Image, extent: Extent, window: Window) -> bool:
    if max(extent[0] / window.scaled[0], extent[1] / window.scaled[1]) >= 2 * _REDUCING_GAP:
        return False  # Pillow reduces by 2 or more
    for pixels, of_picture, scaled in zip(image.size, extent, window.scaled, strict=True):
        if pixels == scaled and of_picture != pixels:
            return False  # torch would leave this side as it is
    return _area(window.scaled) <= _MOST_UNSEEN * _area(window.size) and _is_torch_quick()


def _area(size: Size) -> int:
    return size[0] * size[1]


@cache
def _is_torch_quick() -> bool:
    import torch  # late: seconds

    return torch.backends.cpu.get_cpu_capability() in _QUICK_PROCESSORS


def _resample_by_torch(
    image: Image.Image, extent: Extent, window: Window, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Use the operator itself. torch's function for it takes no scale beside a size."""
    import torch

    operators = {
        "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
        "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
    }
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # kept in the order of the image
    width, height = window.scaled
    enlarged = height / extent[1], width / extent[0]
    whole = operators[interpolation](pixels, [height, width], False, *enlarged)
    (left, top), (width, height) = window.corner, window.size
    shown: NDArray[np.uint8] = whole.numpy()[0].transpose(1, 2, 0)[top : top + height, left : left + width]
    return np.ascontiguousarray(shown)
