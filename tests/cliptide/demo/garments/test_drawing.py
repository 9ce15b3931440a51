import io
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from cliptide.demo.garments.combinations import COLOURS, GARMENTS, Combination
from cliptide.demo.garments.drawing import PictureDrawer, build_silhouettes, shadow
from cliptide.demo.garments.outlines import Silhouette, box, ellipse, mirrored, rounded

SHIRT = Combination("t-shirt", "blue", "plain")


def pixels(combination: Combination, seed: int, size: int = 64) -> npt.NDArray[np.float64]:
    return np.asarray(PictureDrawer().draw(combination, seed=seed, size=size)).astype(float)


def outline_mask(silhouette: Silhouette) -> npt.NDArray[np.bool_]:
    """The silhouette, upright and unscaled, on 64 × 64 pixels."""
    image = Image.new("1", (64, 64))
    draw = ImageDraw.Draw(image)
    for outline in silhouette.body + silhouette.trim:
        draw.polygon([(32 + 30 * x, 32 + 30 * y) for x, y in outline], fill=1)
    for stroke in silhouette.handles:
        draw.line([(32 + 30 * x, 32 + 30 * y) for x, y in stroke.points], fill=1, width=2)
    return np.asarray(image)


def test_the_same_seed_draws_the_same_picture():
    assert np.array_equal(pixels(SHIRT, seed=5), pixels(SHIRT, seed=5))


def test_another_seed_draws_another_picture():
    assert np.abs(pixels(SHIRT, seed=5) - pixels(SHIRT, seed=6)).mean() > 5


@pytest.mark.parametrize("size", [64, 320])
def test_a_jpeg_file_has_the_size_asked_for(size: int):
    file = PictureDrawer().jpeg_bytes(SHIRT, seed=1, size=size)
    image = Image.open(io.BytesIO(file))

    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))


def test_a_small_picture_shows_what_the_large_one_shows():
    large = PictureDrawer().draw(SHIRT, seed=3, size=320).resize((64, 64), Image.Resampling.BOX)

    assert np.abs(np.asarray(large).astype(float) - pixels(SHIRT, seed=3, size=64)).mean() < 4


def test_every_silhouette_stays_within_its_coordinates():
    for garment, silhouette in build_silhouettes().items():
        points = list(itertools.chain(*silhouette.body, *silhouette.trim))
        assert max(max(abs(x), abs(y)) for x, y in points) <= 1, garment


def test_there_is_a_silhouette_for_every_garment():
    assert set(build_silhouettes()) == set(GARMENTS)


def test_any_two_garments_differ_in_outline_at_64_pixels():
    masks = {garment: outline_mask(silhouette) for garment, silhouette in build_silhouettes().items()}
    for (first, a), (second, b) in itertools.combinations(masks.items(), 2):
        overlap = max((a & b).sum() / (a | b).sum(), (a & b[:, ::-1]).sum() / (a | b[:, ::-1]).sum())
        assert overlap < 0.85, f"{first} and {second} overlap by {overlap:.2f}"


def test_the_colours_of_plain_shirts_lie_apart():
    middles = {
        colour: np.mean(
            [pixels(Combination("t-shirt", colour, "plain"), seed)[28:36, 28:36] for seed in range(8)],
            axis=(0, 1, 2),
        )
        for colour in COLOURS
    }
    for (first, a), (second, b) in itertools.combinations(middles.items(), 2):
        assert np.linalg.norm(a - b) > 40, f"{first} and {second}"


@pytest.mark.parametrize("pattern", ["striped", "dotted", "checked"])
def test_a_patterned_cloth_varies_and_a_plain_one_does_not(pattern: str):
    def contrast(of: str) -> float:
        patches = [pixels(Combination("t-shirt", "blue", of), seed, 128)[50:78, 50:78] for seed in range(4)]
        return float(np.mean([patch.std(axis=(0, 1)).mean() for patch in patches]))

    assert contrast(pattern) > 25
    assert contrast("plain") < 15


def test_a_shadow_that_falls_off_the_picture_does_not_come_back_at_the_top():
    garment = np.zeros((64, 64), dtype=np.float32)
    garment[50:] = 1
    light = shadow(garment, np.random.default_rng(1))

    assert light[40:].min() < 0.6
    assert (light[:40] == 1).all()


def test_a_mirrored_outline_is_symmetric():
    outline = mirrored([(0.0, -1.0), (0.5, 0.0), (0.0, 1.0)])

    assert outline == ((0.0, -1.0), (0.5, 0.0), (0.0, 1.0), (-0.5, 0.0))


def test_rounding_cuts_corners_and_keeps_the_middles_of_edges():
    points = rounded(box(-1, -1, 1, 1), radius=0.5)

    assert (-1, -1) not in points
    assert (-0.5, -1.0) in points
    assert max(max(abs(x), abs(y)) for x, y in points) == 1


def test_rounding_never_takes_more_than_half_an_edge():
    assert set(rounded(box(0, 0, 0.2, 0.2), radius=9.0)) >= {(0.1, 0.0), (0.2, 0.1), (0.1, 0.2), (0.0, 0.1)}


def test_an_ellipse_runs_clockwise_from_three_o_clock():
    quarter = ellipse((0.0, 0.0), 2.0, 1.0, 0, 90)

    assert quarter[0] == pytest.approx((2, 0))
    assert quarter[-1] == pytest.approx((0, 1))
