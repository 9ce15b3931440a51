"""torch and Pillow resample alike, and torch is used for what it is quicker at."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from clip_index.encoder import image_resampling
from clip_index.encoder.image_resampling import Interpolation, Window, resample, resample_rgb
from tests.clip_index.encoder.pictures import plain_photograph

QUICK = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
needs_quick_torch = pytest.mark.skipif(not QUICK, reason="torch resamples slowly on this processor")


MOST = 2  # both round twice, and torch's weights have fewer digits


class ResampledByTorch(AssertionError):
    pass


@pytest.fixture
def refuse_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ResampledByTorch

    monkeypatch.setattr(image_resampling, "_resample_by_torch", refuse)
    monkeypatch.setattr(image_resampling, "_is_torch_quick", lambda: True)


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def greatest_difference(
    image: Image.Image, extent: tuple[float, float], window: Window, interpolation: Interpolation
) -> int:
    """Compare with Pillow, which is made to resample along the rows first, as torch always does."""
    by_torch = image_resampling._resample_by_torch(image, extent, window, interpolation)
    filter_, scaled_width = Image.Resampling[interpolation.upper()], window.scaled[0]
    wide = image.resize((scaled_width, image.height), filter_, (0, 0, extent[0], image.height))
    whole = np.asarray(wide.resize(window.scaled, filter_, (0, 0, scaled_width, extent[1])))
    (left, top), (width, height) = window.corner, window.size
    assert by_torch.shape == (height, width, 3)
    assert by_torch.flags.c_contiguous
    return int(np.abs(by_torch.astype(int) - whole[top : top + height, left : left + width]).max())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("size", "extent"),
    [((500, 375), (500.0, 375.0)), ((501, 376), (500.125, 375.375)), ((130, 97), (129.5, 96.25))],
    ids=["whole", "padded", "enlarged"],
)
def test_both_give_the_same_pixels(
    size: tuple[int, int], extent: tuple[float, float], interpolation: Interpolation
) -> None:
    window = Window((299, 224), (38, 0), (224, 224))
    assert greatest_difference(plain_photograph(*size), extent, window, interpolation) <= MOST


@given(
    st.integers(8, 90),
    st.integers(8, 90),
    st.floats(0.0, 0.99),
    st.integers(16, 60),
    st.integers(16, 60),
    st.floats(0.0, 1.0),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_both_give_the_same_pixels_of_any_part(
    width: int,
    height: int,
    rest: float,
    scaled_width: int,
    scaled_height: int,
    shift: float,
    interpolation: Interpolation,
) -> None:
    assume(width != scaled_width and height != scaled_height)
    size = max(1, scaled_width * 3 // 4), max(1, scaled_height * 3 // 4)
    corner = round((scaled_width - size[0]) * shift), round((scaled_height - size[1]) * shift)
    window = Window((scaled_width, scaled_height), corner, size)
    extent = width - rest, height - rest
    assert greatest_difference(noise(width, height), extent, window, interpolation) <= MOST


@needs_quick_torch
def test_a_usual_picture_is_resampled_by_torch(refuse_torch: None) -> None:
    window = Window((299, 224), (38, 0), (224, 224))
    with pytest.raises(ResampledByTorch):
        resample_rgb(plain_photograph(500, 375), (500, 375), window, "bicubic")


@pytest.mark.parametrize(
    ("extent", "window"),
    [
        ((1400, 1400), Window((224, 224), (0, 0), (224, 224))),
        ((1000, 300), Window((747, 224), (0, 0), (224, 224))),
        ((298.5, 300), Window((299, 224), (0, 0), (224, 224))),
        ((300, 223.5), Window((299, 224), (0, 0), (224, 224))),
    ],
    ids=["much larger", "little of it shown", "as wide but for the padding", "as high but for the padding"],
)
def test_pillow_resamples_what_torch_would_take_longer_for_or_leave_as_it_is(
    refuse_torch: None, extent: tuple[float, float], window: Window
) -> None:
    image = plain_photograph(math.ceil(extent[0]), math.ceil(extent[1]))
    pixels = resample_rgb(image, extent, window, "bicubic")
    assert np.array_equal(pixels, np.asarray(resample(image, extent, window, "bicubic")))


def test_pillow_resamples_where_torch_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    image_resampling._is_torch_quick.cache_clear()
    image, window = plain_photograph(500, 375), Window((299, 224), (38, 0), (224, 224))
    try:
        pixels = resample_rgb(image, (500, 375), window, "bicubic")
    finally:
        image_resampling._is_torch_quick.cache_clear()
    assert np.array_equal(pixels, np.asarray(resample(image, (500, 375), window, "bicubic")))


def test_the_pixels_can_be_written_to() -> None:
    for size in ((500, 375), (1400, 1400)):
        window = Window((299, 224), (38, 0), (224, 224))
        assert resample_rgb(plain_photograph(*size), size, window, "bicubic").flags.writeable
