from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import Resizing, make_thumbnail
from clip_index.errors import BadContent
from tests.clip_index.encoder.pictures import (
    LIMITS,
    PHOTOGRAPHS,
    encoded,
    filled,
    mean_difference,
    photograph,
    png_chunk,
    read,
    reason_of,
    reference,
)

REASONS = {"not_an_image", "unsupported_image", "image_too_large", "truncated_image", "damaged_image"}
PILLOW_MAY_WARN = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of what it then ignores


class TestPhotographs:
    @pytest.mark.parametrize(
        "name",
        [
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
            "rocket.jpg",
            "hubble_deep_field.jpg",
            "camera.png",
            "color.png",
        ],
    )
    def test_a_photograph_looks_as_if_fully_decoded(self, name: str) -> None:
        pixels = read((PHOTOGRAPHS / name).read_bytes(), Resizing(224, 224))
        assert pixels.shape == (224, 224, 3)
        assert mean_difference(pixels, reference(photograph(name), 224)) < 2.5

    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF"])
    def test_the_format_does_not_matter(self, image_format: str) -> None:
        image = photograph("chelsea.png")
        assert mean_difference(read(encoded(image, image_format)), reference(image)) < 6

    @pytest.mark.parametrize("size", [(64, 64), (65, 64), (64, 127), (97, 131), (513, 300)], ids=str)
    def test_a_lossless_picture_is_resampled_as_torchvision_does(self, size: tuple[int, int]) -> None:
        image = photograph("coffee.png").resize(size)
        # one crop at once or two steps differ by rounding alone
        assert np.abs(read(encoded(image, "PNG")).astype(int) - reference(image).astype(int)).max() <= 2

    def test_the_extension_does_not_matter_but_the_bytes_do(self) -> None:
        assert read((PHOTOGRAPHS / "retina.jpg").read_bytes()).std() > 10

    def test_every_local_photograph_is_read_or_refused_with_a_reason(self) -> None:
        for path in PHOTOGRAPHS.iterdir():
            if path.name == "multipage_rgb.tif":  # five samples a pixel
                assert reason_of(path.read_bytes()) == "unsupported_image"
            elif path.suffix in {".png", ".jpg", ".gif", ".tif"}:
                assert read(path.read_bytes()).shape == (64, 64, 3)


class TestResizing:
    @pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1), (3, 2)], ids=str)
    def test_extreme_shapes_become_model_input(self, size: tuple[int, int]) -> None:
        assert (read(encoded(filled("RGB", (10, 200, 30), size), "PNG")) == (10, 200, 30)).all()

    def test_shortest_crops_the_centre(self) -> None:
        image = filled("RGB", "red", (300, 100))
        image.paste("blue", (100, 0, 200, 100))
        assert (read(encoded(image, "PNG"))[:, 2:-2] == (0, 0, 255)).all()

    def test_squash_shows_everything(self) -> None:
        image = filled("RGB", "red", (300, 100))
        image.paste("blue", (150, 0, 300, 100))
        pixels = read(encoded(image, "PNG"), Resizing(64, 64, "squash"))
        assert (pixels[:, :28] == (255, 0, 0)).all()
        assert (pixels[:, 36:] == (0, 0, 255)).all()

    def test_longest_pads_with_the_fill(self) -> None:
        pixels = read(encoded(filled("RGB", "red", (300, 100)), "PNG"), Resizing(60, 60, "longest", fill=7))
        assert (pixels[:20] == 7).all()
        assert (pixels[20:40] == (255, 0, 0)).all()
        assert (pixels[40:] == 7).all()

    @pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
    def test_the_target_need_not_be_square(self, mode: str) -> None:
        pixels = read(encoded(photograph(), "PNG"), Resizing(50, 80, mode))  # type: ignore[arg-type]
        assert pixels.shape == (80, 50, 3)

    def test_a_photograph_of_odd_size_keeps_its_place_at_an_eighth(self) -> None:
        image = photograph("coffee.png").resize((1999, 1501))
        assert mean_difference(read(encoded(image, "JPEG", quality=95)), reference(image)) < 2


class TestOrientation:
    TURNS = (
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_270,
    )

    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_turned_picture_is_shown_upright(self, orientation: int, image_format: str) -> None:
        upright = photograph("coffee.png")
        stored = upright if orientation == 1 else upright.transpose(self.TURNS[orientation - 2])
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert mean_difference(read(encoded(stored, image_format, exif=exif)), reference(upright)) < 5

    @PILLOW_MAY_WARN
    @pytest.mark.parametrize(
        "exif",
        [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b""],
        ids=["no tiff", "offset outside", "too few entries", "empty"],
    )
    def test_broken_exif_counts_as_upright(self, exif: bytes) -> None:
        image = photograph("coffee.png")
        assert mean_difference(read(encoded(image, "JPEG", exif=exif)), reference(image)) < 5

    @pytest.mark.parametrize("value", [0, 9, 4711])
    def test_an_orientation_that_does_not_exist_counts_as_upright(self, value: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = value
        image = photograph("coffee.png")
        assert mean_difference(read(encoded(image, "JPEG", exif=exif)), reference(image)) < 5


class TestModes:
    @pytest.mark.parametrize(
        ("image", "expected"),
        [
            pytest.param(filled("L", 90), (90, 90, 90), id="grey"),
            pytest.param(filled("1", 1), (255, 255, 255), id="black and white"),
            pytest.param(filled("RGB", (1, 2, 3)).quantize(4), (1, 2, 3), id="palette"),
            pytest.param(filled("RGBA", (200, 0, 0, 0)), (255, 255, 255), id="invisible"),
            pytest.param(filled("RGBA", (200, 0, 0, 255)), (200, 0, 0), id="opaque"),
            pytest.param(filled("LA", (0, 0)), (255, 255, 255), id="grey with alpha"),
            pytest.param(filled("I;16", 90 * 256 + 17), (90, 90, 90), id="16 bits"),
        ],
    )
    def test_png_modes_become_rgb_on_white(self, image: Image.Image, expected: tuple[int, ...]) -> None:
        assert (read(encoded(image, "PNG")) == expected).all()

    def test_half_transparent_is_half_white(self) -> None:
        pixels = read(encoded(filled("RGBA", (200, 0, 0, 128)), "PNG"))
        np.testing.assert_allclose(pixels[0, 0], (227, 127, 127), atol=1)

    def test_a_transparent_palette_entry_is_white(self) -> None:
        image = filled("P", 0)
        image.putpalette([9, 9, 9])
        assert (read(encoded(image, "PNG", transparency=0)) == 255).all()
        assert (read(encoded(image, "GIF", transparency=0)) == 255).all()

    def test_transparent_webp_is_on_white(self) -> None:
        assert (read(encoded(filled("RGBA", (9, 9, 9, 0)), "WEBP", lossless=True, exact=True)) == 255).all()

    def test_a_cmyk_jpeg_becomes_rgb(self) -> None:
        pixels = read(encoded(photograph("coffee.png").convert("CMYK"), "JPEG"))
        assert mean_difference(pixels, reference(photograph("coffee.png"))) < 10

    def test_a_grey_jpeg_becomes_rgb(self) -> None:
        pixels = read(encoded(filled("L", 77), "JPEG"))
        assert mean_difference(pixels, np.full_like(pixels, 77)) < 1

    def test_sixteen_bits_keep_their_range(self) -> None:
        ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16)
        pixels = read(encoded(Image.fromarray(ramp), "PNG"))
        assert pixels.min() <= 2
        assert pixels.max() >= 253
        assert abs(pixels.mean() - 127.5) < 1.5

    def test_of_an_animation_the_first_frame_counts(self) -> None:
        frames = [filled("RGB", color) for color in ("red", "blue")]
        for image_format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
            data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
            assert (read(data) == (255, 0, 0)).all()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def gif_header(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0, 0, 0)
    frame = struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + b"," + frame + b"\x02\x00;"


def webp_header(width: int, height: int) -> bytes:
    real = encoded(filled("RGB", "red", (16, 16)), "WEBP", lossless=False)
    bits = struct.pack("<HH", width, height)
    return real[:26] + bits + real[30:]


def jpeg_header(width: int, height: int) -> bytes:
    real = encoded(filled("RGB", "red", (16, 16)), "JPEG")
    at = real.index(b"\xff\xc0") + 5
    return real[:at] + struct.pack(">HH", height, width) + real[at + 4 :]


NUM_GREY_SCANS = 6  # that Pillow makes


def progressive(num_scans: int, *, between: bytes = b"", **options: object) -> bytes:
    """A progressive JPEG of 40 x 30 grey pixels whose last scan is repeated, `between` before each copy."""
    data = encoded(filled("L", 128), "JPEG", progressive=True, **options).removesuffix(b"\xff\xd9")
    last = data[data.rindex(b"\xff\xda") :]
    return data + (between + last) * (num_scans - NUM_GREY_SCANS) + b"\xff\xd9"


class TestScans:
    """Each takes as long as decoding all pixels, and as little room as its author likes."""

    LIMITS = ImageLimits(max_pixels=40 * 30)

    def test_what_encoders_make_is_taken(self) -> None:
        assert read(progressive(20), limits=self.LIMITS).shape == (64, 64, 3)

    @pytest.mark.parametrize("between", [b"", b"\xff\x01", b"\xff\xff\xff", b"\xff\xfe\0\4\xff\xd9"])
    def test_more_are_refused_wherever_they_hide(self, between: bytes) -> None:
        assert reason_of(progressive(21, between=between), self.LIMITS) == "image_too_large"

    def test_a_small_picture_may_have_more_but_not_any_number(self) -> None:
        limits = ImageLimits(max_pixels=400 * 300)
        assert read(progressive(300), limits=limits).shape == (64, 64, 3)
        assert reason_of(progressive(401), limits) == "image_too_large"

    def test_pictures_inside_and_behind_do_not_count(self) -> None:
        preview = b"Exif\0\0" + progressive(15)
        data = progressive(15, exif=preview) + progressive(15)
        assert read(data, limits=self.LIMITS).shape == (64, 64, 3)


def jpeg_of_size(width: int, height: int, **options: object) -> bytes:
    """A JPEG that claims a size and holds next to nothing."""
    real = encoded(filled("RGB", "red", (16, 16)), "JPEG", **options)
    at = next(real.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in real) + 5
    return real[:at] + struct.pack(">HH", height, width) + real[at + 4 :]


class TestLimitsFollowTheCost:
    """Whether a size is refused by the header alone. What such a JPEG lacks is grey."""

    @pytest.mark.parametrize(
        ("width", "height"),
        [
            pytest.param(9248, 6936, id="64 megapixels of a phone"),
            pytest.param(12_000, 9_000, id="108 megapixels of a phone"),
            pytest.param(16_320, 12_240, id="200 megapixels of a phone"),
            pytest.param(790, 36_861, id="a long screenshot"),
            pytest.param(23_000, 4_000, id="a panorama"),
            pytest.param(65_500, 600, id="the longest JPEG"),
        ],
    )
    def test_what_cameras_and_phones_make_is_taken(self, width: int, height: int) -> None:
        assert read(jpeg_of_size(width, height)).shape == (64, 64, 3)

    def test_a_real_photograph_of_64_megapixels_is_read(self) -> None:
        data = encoded(filled("L", 90, (9248, 6936)), "JPEG")
        np.testing.assert_allclose(read(data), 90, atol=1)

    def test_a_scan_of_a_large_sheet_is_taken(self) -> None:
        assert reason_of(png_header(7016, 9921)) == "truncated_image"

    @pytest.mark.parametrize(
        ("width", "height", "subsampling"),
        [(12_000, 9_000, 0), (16_320, 12_240, 2)],
        ids=["108 megapixels, 4:4:4", "200 megapixels, 4:2:0"],
    )
    def test_a_progressive_picture_costs_what_its_coefficients_take(
        self, width: int, height: int, subsampling: int
    ) -> None:
        data = jpeg_of_size(width, height, progressive=True, subsampling=subsampling)
        assert reason_of(data) == "image_too_large"
        assert read(jpeg_of_size(9248, 6936, progressive=True)).shape == (64, 64, 3)

    def test_a_bitmap_of_runs_is_decoded_slowly_and_may_be_less_large(self) -> None:
        data = bytearray(encoded(filled("P", 0), "BMP"))
        struct.pack_into("<I", data, 30, 1)  # compression: runs of 8 bits
        struct.pack_into("<ii", data, 18, 3000, 2000)
        assert reason_of(bytes(data)) == "image_too_large"


class TestHostile:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(png_header(20_000, 20_000), id="png of 400 megapixels"),
            pytest.param(png_header(10_000, 10_000), id="png of 100 megapixels"),
            pytest.param(png_header(2**31 - 1, 2**31 - 1), id="largest png"),
            pytest.param(gif_header(65_535, 65_535), id="largest gif"),
            pytest.param(webp_header(16_383, 16_383), id="largest webp"),
            pytest.param(jpeg_header(65_500, 65_500), id="largest jpeg"),
            pytest.param(png_header(70_000, 1), id="too long a side"),
        ],
    )
    def test_a_bomb_is_refused_by_its_header(self, data: bytes) -> None:
        assert reason_of(data) == "image_too_large"

    @pytest.mark.parametrize(
        "limits",
        [ImageLimits(max_bytes=500), ImageLimits(max_pixels=1_000), ImageLimits(max_side=39)],
        ids=["bytes", "pixels", "side"],
    )
    def test_each_limit_counts(self, limits: ImageLimits) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        assert reason_of(encoded(Image.fromarray(noise), "PNG"), limits) == "image_too_large"

    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF"])
    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
    def test_a_truncated_picture_is_a_bad_content(self, image_format: str, kept: float) -> None:
        data = encoded(photograph("coffee.png").resize((200, 150)), image_format)
        assert reason_of(data[: int(len(data) * kept)]) == "truncated_image"

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            pytest.param(b"", "not_an_image", id="nothing"),
            pytest.param(b"\xff\xd8", "not_an_image", id="two bytes"),
            pytest.param(b"ein Text", "not_an_image", id="text"),
            pytest.param(b"PK\3\4" + b"\0" * 100, "not_an_image", id="zip"),
            pytest.param(b"8BPS\0\1" + b"\0" * 40, "unsupported_image", id="photoshop"),
            pytest.param(b"BM" + b"\0" * 60, "damaged_image", id="bmp signature alone"),
            pytest.param(b"II*\0" + b"\0" * 60, "damaged_image", id="tiff signature alone"),
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image", id="svg"),
            pytest.param(b"<?xml version='1.0'?>\n<!-- logo --><svg/>", "unsupported_image", id="svg in xml"),
            pytest.param(b"\xef\xbb\xbf\n<svg/>", "unsupported_image", id="svg behind a mark and a line end"),
            pytest.param(b"<?xml version='1.0'?><html/>", "not_an_image", id="xml that draws nothing"),
            pytest.param(b"\0\0\0\x1cftypheic" + b"\0" * 40, "damaged_image", id="heic signature alone"),
            pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "damaged_image", id="png signature alone"),
            pytest.param(png_header(0, 10), "damaged_image", id="no width"),
        ],
    )
    def test_what_is_no_picture_has_a_reason(self, data: bytes, reason: str) -> None:
        assert reason_of(data) == reason

    @PILLOW_MAY_WARN
    @settings(max_examples=300)
    @given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]), st.data())
    def test_damage_anywhere_gives_pixels_or_a_bad_content(
        self, image_format: str, data: st.DataObject
    ) -> None:
        good = encoded(photograph("color.png").resize((40, 30)), image_format)
        place = data.draw(st.integers(0, len(good) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        hurt = good[:place] + patch + good[place + len(patch) :]
        try:
            assert read(hurt).shape == (64, 64, 3)
        except BadContent as bad:
            assert bad.reason in REASONS  # noqa: PT017 - either outcome is right

    def test_reading_leaves_pillows_own_limit_alone(self) -> None:
        before = Image.MAX_IMAGE_PIXELS
        read(encoded(filled("RGB", "red"), "PNG"))
        assert before == Image.MAX_IMAGE_PIXELS


class TestThumbnails:
    def test_a_thumbnail_is_a_small_webp_of_the_whole_picture(self) -> None:
        thumbnail = make_thumbnail((PHOTOGRAPHS / "coffee.png").read_bytes(), 128, LIMITS)
        with Image.open(io.BytesIO(thumbnail)) as image:
            assert (image.format, image.size) == ("WEBP", (128, 85))
            expected = photograph("coffee.png").resize((128, 85), Image.Resampling.BICUBIC)
            assert mean_difference(np.asarray(image), np.asarray(expected)) < 6

    def test_a_small_picture_is_not_enlarged(self) -> None:
        thumbnail = make_thumbnail(encoded(filled("RGB", "red"), "PNG"), 128, LIMITS)
        with Image.open(io.BytesIO(thumbnail)) as image:
            assert image.size == (40, 30)

    def test_a_thumbnail_stands_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        thumbnail = make_thumbnail(encoded(filled("RGB", "red", (300, 100)), "JPEG", exif=exif), 60, LIMITS)
        with Image.open(io.BytesIO(thumbnail)) as image:
            assert image.size == (20, 60)

    def test_a_bad_picture_has_no_thumbnail(self) -> None:
        with pytest.raises(BadContent, match="not_an_image"):
            make_thumbnail(b"nothing", 128, LIMITS)
