"""Pixels are taken as a viewer shows them: the picture's own colour space is converted to sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from clip_index.encoder.image_colors import build_profile
from clip_index.encoder.images import make_thumbnail
from tests.clip_index.encoder.pictures import (
    LIMITS,
    encoded,
    filled,
    mean_difference,
    plain_photograph,
    png_chunk,
    read,
    reference,
    with_png_chunk,
)

D65, D50 = (0.3127, 0.329), (0.3457, 0.3585)
SRGB_PRIMARIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
DISPLAY_P3 = build_profile(D65, (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), 0.0)
ADOBE_RGB = build_profile(D65, (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 2.2)
PROPHOTO = build_profile(D50, (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8)
LINEAR = build_profile(D65, SRGB_PRIMARIES, 1.0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROFILES = {"Display P3": DISPLAY_P3, "Adobe RGB": ADOBE_RGB, "ProPhoto": PROPHOTO, "linear": LINEAR}
PHOTOGRAPH = plain_photograph(300, 200)
FORMATS = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"lossless": True}),
    "TIFF": ("TIFF", {}),
    "AVIF": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
}


def in_space(image: Image.Image, profile: bytes) -> Image.Image:
    """The pixels that show the same colours when a viewer applies the profile."""
    source, target = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None
    converted.info.clear()
    return converted


def thumbnail_of(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(make_thumbnail(data, 60, LIMITS))) as image:
        assert "icc_profile" not in image.info
        return np.asarray(image.convert("RGB"))


def _tag(name: bytes, body: bytes) -> tuple[bytes, bytes]:
    return name, body + b"\0" * (-len(body) % 4)


def lut_profile(space: bytes, table: NDArray[np.uint8], num_channels: int) -> bytes:
    """An ICC profile with a table of Lab (8 bits) at both ends of each channel."""
    identity = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([num_channels, 3, 2, 0])
    head += struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    body = head + identity * num_channels + table.astype(np.uint8).tobytes() + identity * 3
    tags = [_tag(b"A2B0", body), _tag(b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061))]
    offset, entries, bodies = 132 + 12 * len(tags), b"", b""
    for name, content in tags:
        entries += struct.pack(">4sII", name, offset + len(bodies), len(content))
        bodies += content
    header = struct.pack(">I4xI4s4s4s", offset + len(bodies), 0x02400000, b"prtr", space, b"Lab ")
    header += struct.pack(">12x4s28x3i", b"acsp", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + bodies


def press_profile() -> bytes:
    """A press whose black ink is dark, whose others are weak, on yellowish paper."""
    corners = np.array([[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)])
    lightness = 240 - corners @ [40, 50, 10, 170]
    a, b = 128 + corners @ [-20, 40, 0, 0], 133 + corners @ [-30, 0, 60, 0]
    return lut_profile(b"CMYK", np.clip(np.stack([lightness, a, b], axis=1), 0, 255), 4)


class TestProfiles:
    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("space", PROFILES)
    def test_a_photograph_in_another_space_looks_as_it_does_in_srgb(self, name: str, space: str) -> None:
        image_format, options = FORMATS[name]
        stored = in_space(PHOTOGRAPH, PROFILES[space])
        data = encoded(stored, image_format, icc_profile=PROFILES[space], **options)
        assert mean_difference(reference(stored), reference(PHOTOGRAPH)) > 2  # it is another space
        most = 8 if space == "linear" else 4  # whose eight bits are coarse in the dark
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < most
        plain = encoded(PHOTOGRAPH, image_format, **options)
        assert mean_difference(thumbnail_of(data), thumbnail_of(plain)) < most

    def test_ink_looks_as_the_press_profile_says(self) -> None:
        profile = press_profile()
        ink = PHOTOGRAPH.convert("CMYK")
        source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        expected = ImageCms.profileToProfile(ink, source, srgb, outputMode="RGB")
        assert expected is not None
        expected.info.clear()
        for image_format in ("JPEG", "TIFF"):
            pixels = read(encoded(ink, image_format, icc_profile=profile))
            assert mean_difference(pixels, reference(expected)) < 4
            assert mean_difference(pixels, reference(PHOTOGRAPH)) > 10

    def test_transparency_stays_where_colours_are_converted(self) -> None:
        image = in_space(filled("RGB", (200, 100, 50)), PROPHOTO)
        image.putalpha(128)
        expected = read(encoded(filled("RGBA", (200, 100, 50, 128)), "PNG"))
        assert mean_difference(read(encoded(image, "PNG", icc_profile=PROPHOTO)), expected) < 3

    def test_a_palette_is_converted_too(self) -> None:
        image = in_space(filled("RGB", (200, 100, 50)), PROPHOTO).quantize(4)
        pixels = read(encoded(image, "PNG", icc_profile=PROPHOTO))
        np.testing.assert_allclose(pixels[9, 9], (200, 100, 50), atol=4)

    @pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
    def test_grey_has_the_curve_of_its_profile(self, mode: str) -> None:
        grey = lut_profile(b"GRAY", np.array([[0, 128, 128], [255, 128, 128]]), 1)
        value = {"L": 128, "LA": (128, 255), "I;16": 128 * 256}[mode]
        pixels = read(encoded(filled(mode, value), "PNG", icc_profile=grey))
        np.testing.assert_allclose(pixels, 119, atol=2)  # L* 50

    def test_grey_with_a_profile_of_colours_has_its_curve(self) -> None:
        pixels = read(encoded(filled("L", 55), "PNG", icc_profile=LINEAR))
        np.testing.assert_allclose(pixels, 128, atol=2)

    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
    def test_a_picture_in_srgb_is_not_touched(self, image_format: str) -> None:
        assert (
            read(encoded(PHOTOGRAPH, image_format, icc_profile=SRGB))
            == read(encoded(PHOTOGRAPH, image_format))
        ).all()


class TestBrokenProfiles:
    """They do no harm: the pixels are taken as they are."""

    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize(
        "profile",
        [
            pytest.param(b"x", id="a byte"),
            pytest.param(b"nonsense" * 100, id="nonsense"),
            pytest.param(PROPHOTO[:150], id="cut"),
            pytest.param(PROPHOTO[:128] + b"\xff" * 100, id="tags that lie outside"),
            pytest.param(press_profile(), id="of ink"),
            pytest.param(lut_profile(b"GRAY", np.zeros((2, 3)), 1), id="of grey"),
        ],
    )
    def test_a_broken_profile_or_one_of_other_pixels_is_ignored(
        self, profile: bytes, image_format: str
    ) -> None:
        data = encoded(PHOTOGRAPH, image_format, icc_profile=profile)
        assert (read(data) == read(encoded(PHOTOGRAPH, image_format))).all()

    def test_ink_with_a_broken_profile_is_converted_by_the_formula(self) -> None:
        ink = PHOTOGRAPH.convert("CMYK")
        broken = encoded(ink, "JPEG", icc_profile=press_profile()[:300])
        assert (read(broken) == read(encoded(ink, "JPEG"))).all()


class TestPngWithoutProfile:
    LINEAR_PIXELS = in_space(PHOTOGRAPH, LINEAR)
    CHROMATICITIES = struct.pack(
        ">8I", *(round(100_000 * value) for value in (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06))
    )

    def test_its_gamma_is_applied(self) -> None:
        data = with_png_chunk(encoded(self.LINEAR_PIXELS, "PNG"), b"gAMA", struct.pack(">I", 100_000))
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 4

    def test_its_chromaticities_are_applied(self) -> None:
        data = with_png_chunk(encoded(in_space(PHOTOGRAPH, ADOBE_RGB), "PNG"), b"cHRM", self.CHROMATICITIES)
        data = with_png_chunk(data, b"gAMA", struct.pack(">I", 45_455))
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 3

    def test_srgb_overrules_both(self) -> None:
        data = with_png_chunk(encoded(PHOTOGRAPH, "PNG"), b"gAMA", struct.pack(">I", 100_000))
        data = with_png_chunk(with_png_chunk(data, b"sRGB", b"\0"), b"cHRM", self.CHROMATICITIES)
        assert (read(data) == read(encoded(PHOTOGRAPH, "PNG"))).all()

    @pytest.mark.parametrize("value", [0, 1, 45_455, 2**31 - 1])
    def test_a_gamma_that_no_screen_has_is_ignored(self, value: int) -> None:
        data = with_png_chunk(encoded(PHOTOGRAPH, "PNG"), b"gAMA", struct.pack(">I", value))
        assert (read(data) == read(encoded(PHOTOGRAPH, "PNG"))).all()

    @pytest.mark.parametrize("body", [b"\0" * 32, b"\x7f" * 32, struct.pack(">8I", *(31_270, 32_900) * 4)])
    def test_chromaticities_that_no_screen_has_are_ignored(self, body: bytes) -> None:
        data = with_png_chunk(encoded(PHOTOGRAPH, "PNG"), b"cHRM", body)
        assert (read(data) == read(encoded(PHOTOGRAPH, "PNG"))).all()

    @pytest.mark.parametrize(
        ("code_points", "stored"),
        [
            pytest.param(b"\x0c\x0d\0\1", lambda: in_space(PHOTOGRAPH, DISPLAY_P3), id="Display P3"),
            pytest.param(b"\x01\x08\0\1", lambda: in_space(PHOTOGRAPH, LINEAR), id="linear"),
            pytest.param(b"\x01\x0d\0\1", lambda: PHOTOGRAPH, id="sRGB"),
        ],
    )
    def test_code_points_are_applied(self, code_points: bytes, stored: Callable[[], Image.Image]) -> None:
        data = with_png_chunk(encoded(stored(), "PNG"), b"cICP", code_points)
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 4

    @pytest.mark.parametrize(
        ("code_points", "expected"),
        [
            pytest.param(
                b"\x09\x10\0\1", {30: (4,) * 3, 90: (61,) * 3, 150: (193,) * 3, 210: (255,) * 3}, id="PQ"
            ),
            pytest.param(
                b"\x09\x12\0\1", {30: (12,) * 3, 90: (66,) * 3, 150: (122,) * 3, 210: (214,) * 3}, id="HLG"
            ),
        ],
    )
    def test_the_light_of_hdr_is_mapped_to_that_of_a_screen_as_chromium_does(
        self, code_points: bytes, expected: dict[int, tuple[int, int, int]]
    ) -> None:
        for level, shown in expected.items():
            grey = Image.new("RGB", (16, 16), (level,) * 3)
            pixels = read(with_png_chunk(encoded(grey, "PNG"), b"cICP", code_points))
            assert np.abs(pixels.reshape(-1, 3).astype(int) - shown).max() <= 4

    def test_a_bright_colour_of_hdr_keeps_its_hue(self) -> None:
        color = Image.new("RGB", (16, 16), (195, 98, 49))
        pixels = read(with_png_chunk(encoded(color, "PNG"), b"cICP", b"\x09\x12\0\1"))
        assert np.abs(pixels.reshape(-1, 3).astype(int) - (218, 49, 16)).max() <= 12

    def test_code_points_overrule_a_profile(self) -> None:
        data = encoded(in_space(PHOTOGRAPH, DISPLAY_P3), "PNG", icc_profile=LINEAR)
        assert mean_difference(read(data), reference(PHOTOGRAPH)) > 10
        data = with_png_chunk(data, b"cICP", b"\x0c\x0d\0\1")
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 4

    def test_a_profile_behind_the_pixels_is_no_profile(self) -> None:
        data = encoded(PHOTOGRAPH, "PNG")
        late = data[:-12] + png_chunk(b"gAMA", struct.pack(">I", 100_000)) + data[-12:]
        assert (read(late) == read(data)).all()


def test_the_profile_of_an_avif_overrules_its_code_points() -> None:
    name, options = FORMATS["AVIF"]
    data = encoded(in_space(PHOTOGRAPH, PROPHOTO), name, icc_profile=PROPHOTO, **options)
    unspecified, srgb = struct.pack(">HH", 2, 2), struct.pack(">HH", 1, 13)
    both = data.replace(b"colrnclx" + unspecified, b"colrnclx" + srgb)
    assert both != data
    assert mean_difference(read(both), reference(PHOTOGRAPH)) < 4


def test_an_avif_without_a_profile_follows_its_code_points() -> None:
    name, options = FORMATS["AVIF"]
    data = encoded(in_space(PHOTOGRAPH, DISPLAY_P3), name, **options)
    stated = data.replace(b"colrnclx" + struct.pack(">HH", 1, 13), b"colrnclx" + struct.pack(">HH", 12, 13))
    assert stated != data
    assert mean_difference(read(stated), reference(PHOTOGRAPH)) < 4


def test_the_light_of_an_avif_of_hdr_is_mapped_to_that_of_a_screen() -> None:
    name, options = FORMATS["AVIF"]
    data = encoded(Image.new("RGB", (32, 32), (150,) * 3), name, **options)
    stated = data.replace(b"colrnclx" + struct.pack(">HH", 1, 13), b"colrnclx" + struct.pack(">HH", 9, 16))
    assert stated != data
    assert np.abs(read(stated).astype(int) - 193).max() <= 5
