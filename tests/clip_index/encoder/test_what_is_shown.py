"""Whose orientation counts, which frame of an animation, and which background behind transparency."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import make_thumbnail
from tests.clip_index.encoder.pictures import (
    LIMITS,
    encoded,
    filled,
    mean_difference,
    plain_photograph,
    read,
    reason_of,
    reference,
    with_jpeg_segment,
    with_png_chunk,
)

PHOTOGRAPH = plain_photograph(300, 200)
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation=\"6\"/>"
    b"</rdf:RDF></x:xmpmeta>"
)


class TestOrientation:
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_an_orientation_that_only_xmp_states_is_ignored(self, image_format: str) -> None:
        plain = encoded(PHOTOGRAPH, image_format)
        if image_format == "JPEG":
            data = with_jpeg_segment(plain, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        elif image_format == "PNG":
            data = with_png_chunk(plain, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        elif image_format == "TIFF":
            data = encoded(PHOTOGRAPH, image_format, tiffinfo={700: XMP})
        else:
            data = encoded(PHOTOGRAPH, image_format, xmp=XMP)
        assert data != plain
        assert (read(data) == read(plain)).all()

    def test_xmp_does_not_overrule_exif(self) -> None:
        exif = Image.Exif()
        exif[274] = 3
        plain = encoded(PHOTOGRAPH, "JPEG", exif=exif)
        data = with_jpeg_segment(plain, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        assert (read(data) == read(plain)).all()
        assert mean_difference(read(data), reference(PHOTOGRAPH.transpose(Image.Transpose.ROTATE_180))) < 3

    def test_exif_in_a_text_chunk_of_a_png_is_ignored(self) -> None:
        exif = Image.Exif()
        exif[274] = 6
        text = b"\nexif\n%8d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode()
        plain = encoded(PHOTOGRAPH, "PNG")
        data = with_png_chunk(plain, b"tEXt", b"Raw profile type exif\0" + text)
        assert (read(data) == read(plain)).all()

    def test_exif_behind_the_pixels_of_a_png_counts(self) -> None:
        exif = Image.Exif()
        exif[274] = 3
        turned = encoded(PHOTOGRAPH.transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif)
        start = turned.index(b"eXIf") - 4
        end = turned.index(b"IDAT") - 4
        chunk = turned[start:end]
        data = turned[:start] + turned[end:-12] + chunk + turned[-12:]
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 1


def animation(image_format: str, frames: list[Image.Image]) -> bytes:
    options = {"lossless": True} if image_format == "WEBP" else {}
    first, *others = (frame.copy() for frame in frames)  # Pillow leaves settings of a format behind
    return encoded(first, image_format, save_all=True, append_images=others, duration=100, **options)


ANIMATED = pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])


class TestFrames:
    @ANIMATED
    @pytest.mark.parametrize("color", ["white", "black", (40, 90, 200)])
    def test_an_animation_that_begins_blank_is_seen_by_its_first_frame_that_is_not(
        self, image_format: str, color: object
    ) -> None:
        blank = filled("RGB", color, (300, 200))
        data = animation(image_format, [blank, PHOTOGRAPH, filled("RGB", "red", (300, 200))])
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 8
        with Image.open(io.BytesIO(make_thumbnail(data, 64, LIMITS))) as thumbnail:
            assert np.asarray(thumbnail).std() > 20

    @ANIMATED
    def test_the_first_frame_counts_if_it_shows_something(self, image_format: str) -> None:
        data = animation(image_format, [PHOTOGRAPH, PHOTOGRAPH.rotate(180)])
        assert mean_difference(read(data), reference(PHOTOGRAPH)) < 8

    @ANIMATED
    def test_if_every_frame_is_blank_the_first_counts(self, image_format: str) -> None:
        data = animation(image_format, [filled("RGB", color) for color in ("red", "blue", "green")])
        assert mean_difference(read(data), np.full((64, 64, 3), (255, 0, 0), dtype=np.uint8)) < 2

    @pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
    def test_frames_that_are_cut_off_leave_the_first(self, image_format: str) -> None:
        data = animation(image_format, [filled("RGB", "red", (300, 200)), PHOTOGRAPH])
        shorter = data[: len(data) * 97 // 100]
        assert read(shorter).shape == (64, 64, 3)

    def test_the_number_of_frames_that_are_looked_at_is_bounded(self) -> None:
        blanks = [filled("L", 10 * (number % 2)) for number in range(40)]
        data = animation("GIF", [*blanks, PHOTOGRAPH.convert("L").resize((40, 30))])
        assert np.ptp(read(data)) == 0

    def test_many_large_blank_frames_cost_no_more_than_one_large_picture(self) -> None:
        data = animation("GIF", [filled("L", 0), filled("L", 9), PHOTOGRAPH.convert("L").resize((40, 30))])
        assert np.ptp(read(data, limits=ImageLimits(max_pixels=2 * 40 * 30))) == 0
        assert np.ptp(read(data, limits=ImageLimits(max_pixels=3 * 40 * 30))) > 50

    def test_a_later_page_keeps_the_limits_too(self) -> None:
        data = animation("TIFF", [filled("L", 0), PHOTOGRAPH.convert("L")])
        assert reason_of(data, ImageLimits(max_pixels=10_000)) == "image_too_large"


def drawing(color: object, *, width: int = 6) -> Image.Image:
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((40, 40, 160, 160), outline=color, width=width)  # type: ignore[arg-type]
    return image


class TestBackground:
    FORMATS = pytest.mark.parametrize(
        ("image_format", "options"),
        [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {"quality": 95})],
        ids=["PNG", "WebP", "TIFF", "AVIF"],
    )

    @FORMATS
    @pytest.mark.parametrize(
        "color",
        [(255, 255, 255, 255), (250, 250, 245, 255), (255, 255, 255, 160)],
        ids=["white", "ivory", "veil"],
    )
    def test_a_light_drawing_can_be_made_out(
        self, image_format: str, options: dict[str, object], color: object
    ) -> None:
        data = encoded(drawing(color), image_format, **options)
        assert read(data).std() > 30
        with Image.open(io.BytesIO(make_thumbnail(data, 100, LIMITS))) as thumbnail:
            assert np.asarray(thumbnail).std() > 30

    @FORMATS
    def test_two_white_drawings_differ(self, image_format: str, options: dict[str, object]) -> None:
        one, other = drawing("white"), drawing("white", width=40).rotate(20)
        pixels = (read(encoded(image, image_format, **options)) for image in (one, other))
        assert mean_difference(next(pixels), next(pixels)) > 10

    @FORMATS
    @pytest.mark.parametrize("color", ["black", "red", (200, 200, 200, 255)])
    def test_a_drawing_that_white_shows_lies_on_white(
        self, image_format: str, options: dict[str, object], color: object
    ) -> None:
        pixels = read(encoded(drawing(color), image_format, **options))
        np.testing.assert_allclose(pixels[0, 0], 255, atol=3)

    def test_a_page_of_text_with_transparent_corners_lies_on_white(self) -> None:
        page = Image.new("RGBA", (200, 200), "white")
        ImageDraw.Draw(page).text((30, 30), "some words\nin black" * 3, fill="black")
        page.paste((0, 0, 0, 0), (0, 0, 30, 30))  # type: ignore[arg-type]
        assert (read(encoded(page, "PNG"))[0, 0] == 255).all()

    def test_a_white_drawing_in_a_palette_can_be_made_out(self) -> None:
        palette = drawing("white").quantize(4)
        assert read(encoded(palette, "PNG")).std() > 30
        assert read(encoded(palette, "GIF")).std() > 30

    def test_what_is_invisible_everywhere_is_white(self) -> None:
        assert (read(encoded(filled("RGBA", (0, 0, 0, 0)), "PNG")) == 255).all()
        assert (read(encoded(filled("RGBA", (255, 255, 255, 0)), "PNG")) == 255).all()
