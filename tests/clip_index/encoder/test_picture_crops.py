"""Which crops a wide or tall picture has, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_index.encoder.images import Resizing, read_crops
from clip_index.encoder.picture_crops import Cropping, max_crops_of, without_crops
from clip_index.encoder.settings import EncoderSettings
from fakes.hash_encoder import HashEncoder
from tests.clip_index.encoder.pictures import (
    LIMITS,
    SMALL,
    encoded,
    filled,
    mean_difference,
    plain_photograph,
    read,
    reference,
)

THREE = Cropping(3)


def crops_of(
    image: Image.Image, cropping: Cropping = THREE, resizing: Resizing = SMALL, image_format: str = "PNG"
) -> list[np.ndarray]:
    return read_crops(encoded(image, image_format), resizing, LIMITS, cropping)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("width", "height"), [(256, 128), (128, 256), (640, 256)], ids=["2:1", "1:2", "5:2"])
def test_the_crops_are_the_middle_and_both_ends(width: int, height: int, image_format: str) -> None:
    whole, side = plain_photograph(width, height), min(width, height)
    middle, first, last = crops_of(whole, image_format=image_format)
    assert np.array_equal(middle, read(encoded(whole, image_format)))
    assert mean_difference(first, reference(whole.crop((0, 0, side, side)))) < 5
    end = whole.crop((width - side, height - side, width, height))
    assert mean_difference(last, reference(end)) < 5


def test_the_ends_are_those_of_the_picture_as_it_is_shown() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned clockwise: the left of the stored picture is the top of the shown one
    stored = plain_photograph(256, 128)
    turned = read_crops(encoded(stored, "PNG", exif=exif), SMALL, LIMITS, THREE)
    shown = crops_of(stored.transpose(Image.Transpose.ROTATE_270))
    assert len(turned) == 3
    assert all(map(np.array_equal, turned, shown))


@pytest.mark.parametrize(("width", "height"), [(100, 100), (160, 90), (180, 100), (90, 160)])
def test_usual_pictures_have_one_crop(width: int, height: int) -> None:
    assert len(crops_of(plain_photograph(width, height))) == 1


def test_an_end_that_is_blank_has_no_crop() -> None:
    banner = filled("RGB", "white", (300, 100))
    assert len(crops_of(banner)) == 1
    banner.paste(plain_photograph(100, 100), (200, 0))
    assert len(crops_of(banner)) == 2


def test_a_longer_picture_has_as_many_crops_as_are_allowed() -> None:
    panorama = plain_photograph(600, 100)
    assert [len(crops_of(panorama, Cropping.at_most(most))) for most in (1, 2, 3, 4, 5, 9)] == [
        1,
        1,
        3,
        3,
        5,
        7,
    ]


def test_a_model_with_an_oblong_input_counts_in_inputs() -> None:
    banner = Resizing(64, 32)
    assert len(crops_of(plain_photograph(300, 150), resizing=banner)) == 1
    assert len(crops_of(plain_photograph(150, 150), resizing=banner)) == 3


@pytest.mark.parametrize("mode", ["squash", "longest"])
def test_a_model_that_is_shown_the_whole_picture_needs_no_further_crop(mode: str) -> None:
    assert len(crops_of(plain_photograph(300, 100), resizing=Resizing(64, 64, mode))) == 1  # type: ignore[arg-type]


@given(st.floats(1.0, 30.0), st.integers(1, 9))
def test_crops_show_all_of_a_picture_if_there_may_be_as_many(ratio: float, most: int) -> None:
    shifts = Cropping.at_most(most).shifts(ratio)
    begins = sorted(shift * (ratio - 1) for shift in shifts)
    assert shifts[0] == 0.5
    assert len(shifts) <= most
    if 1.8 < ratio <= len(shifts):
        gaps = np.diff(begins)
        assert begins[0] == 0
        assert max(gaps) <= 1 + 1e-9
        assert begins[-1] == pytest.approx(ratio - 1)


@pytest.mark.parametrize("most", [1, 3, 9])
def test_a_windowing_tells_how_many_crops_its_index_has(most: int) -> None:
    written = Cropping(most).written_behind("75/60/64 tokenizer=words")
    assert max_crops_of(written) == most
    assert without_crops(written) == "75/60/64 tokenizer=words"


@pytest.mark.parametrize("most", [0, -1, 10])
def test_absurd_numbers_of_crops_are_refused(most: int) -> None:
    with pytest.raises(ValueError, match="1 to 9"):
        EncoderSettings(max_crops=most)


def test_each_crop_is_a_row_of_its_content() -> None:
    encoder = HashEncoder(max_crops=3)
    wide, usual = (
        encoder.prepare_image(encoded(plain_photograph(*size), "PNG")) for size in ((90, 30), (40, 30))
    )
    assert (wide.num_rows, usual.num_rows) == (3, 1)
    of_wide, of_usual = encoder.encode([wide, usual])
    assert (of_wide.shape, of_usual.shape) == ((3, encoder.dimension), (1, encoder.dimension))
