"""What is not pixels never decides whether a picture is read; of the pixels, 4 % may be missing."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import make_thumbnail
from tests.clip_index.encoder.pictures import (
    LIMITS,
    encoded,
    mean_difference,
    plain_photograph,
    read,
    reason_of,
    with_jpeg_segment,
    with_png_chunk,
)

PHOTOGRAPH = plain_photograph(600, 400)
FORMATS = {
    "JPEG": ("JPEG", {}),
    "JPEG, 4:4:4": ("JPEG", {"subsampling": 0}),
    "JPEG with restarts": ("JPEG", {"restart_marker_rows": 1}),
    "grey JPEG": ("JPEG", {"mode": "L"}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "PNG": ("PNG", {}),
    "palette PNG": ("PNG", {"mode": "P"}),
    "lossy WebP": ("WEBP", {}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "GIF": ("GIF", {}),
    "AVIF": ("AVIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
}
BUT_PROGRESSIVE = pytest.mark.parametrize("name", [name for name in FORMATS if name != "progressive JPEG"])
EVERY_FORMAT = pytest.mark.parametrize("name", FORMATS)


def made(name: str) -> bytes:
    image_format, options = FORMATS[name]
    mode = options.get("mode", "RGB")
    return encoded(
        PHOTOGRAPH.convert(mode), image_format, **{k: v for k, v in options.items() if k != "mode"}
    )


class TestTheEndOfAFile:
    @EVERY_FORMAT
    @pytest.mark.parametrize("num_missing", [1, 2, 12, 200])
    def test_a_picture_that_lacks_its_last_bytes_is_read(self, name: str, num_missing: int) -> None:
        data = made(name)
        assert mean_difference(read(data[:-num_missing]), read(data)) < 2
        assert make_thumbnail(data[:-num_missing], 64, LIMITS).startswith(b"RIFF")

    @EVERY_FORMAT
    def test_a_picture_that_lacks_two_in_a_hundred_bytes_is_read(self, name: str) -> None:
        data = made(name)
        assert mean_difference(read(data[: len(data) * 98 // 100]), read(data)) < 8

    @BUT_PROGRESSIVE
    @pytest.mark.parametrize("kept", [0.1, 0.4])
    def test_half_a_picture_is_refused(self, name: str, kept: float) -> None:
        data = made(name)
        assert reason_of(data[: int(len(data) * kept)]) == "truncated_image"

    @BUT_PROGRESSIVE
    def test_a_tenth_of_the_picture_is_too_much_to_miss(self, name: str) -> None:
        data = made(name)
        assert reason_of(data[: int(len(data) * 0.88)]) == "truncated_image"

    def test_a_progressive_picture_without_its_last_details_is_read(self) -> None:
        data = made("progressive JPEG")
        assert mean_difference(read(data[: int(len(data) * 0.7)]), read(data)) < 4

    @EVERY_FORMAT
    def test_bytes_behind_a_picture_do_not_matter(self, name: str) -> None:
        data = made(name)
        assert (read(data + b"a text that somebody has appended" * 100) == read(data)).all()


class TestPng:
    DATA = encoded(PHOTOGRAPH, "PNG")

    @pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
    def test_a_text_that_expands_to_megabytes_does_not_matter(self, kind: bytes) -> None:
        head = b"Comment\0\0" if kind == b"zTXt" else b"Comment\0\1\0\0\0"
        body = head + zlib.compress(b"x" * 2**21)
        assert (read(with_png_chunk(self.DATA, kind, body)) == read(self.DATA)).all()

    def test_many_megabytes_of_text_do_not_matter(self) -> None:
        data = self.DATA
        for _ in range(70):
            data = with_png_chunk(data, b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_000_000))
        assert (read(data) == read(self.DATA)).all()

    @pytest.mark.parametrize(
        "kind", [b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"tIME", b"iCCP", b"gAMA", b"eXIf", b"prVt", b"acTL"]
    )
    def test_a_wrong_checksum_of_what_is_not_pixels_does_not_matter(self, kind: bytes) -> None:
        damaged = with_png_chunk(self.DATA, kind, b"Comment\0nonsense" * 4, wrong_checksum=True)
        assert (read(damaged) == read(self.DATA)).all()

    @pytest.mark.parametrize("kind", [b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"zTXt", b"iCCP", b"acTL", b"fcTL"])
    @pytest.mark.parametrize("body", [b"", b"x", b"name\0\7nonsense"])
    def test_a_chunk_of_nonsense_does_not_matter(self, kind: bytes, body: bytes) -> None:
        image = read(with_png_chunk(self.DATA, kind, body))
        assert mean_difference(image, read(self.DATA)) < 1

    @pytest.mark.parametrize("body", [b"", b"x"])
    def test_a_transparent_colour_that_is_cut_does_not_matter(self, body: bytes) -> None:
        assert (read(with_png_chunk(self.DATA, b"tRNS", body)) == read(self.DATA)).all()

    def test_a_wrong_checksum_of_pixels_does_not_matter_where_the_pixels_are_right(self) -> None:
        at = self.DATA.index(b"IDAT")
        (length,) = struct.unpack_from(">I", self.DATA, at - 4)
        end = at + 4 + length
        damaged = self.DATA[:end] + b"\1\2\3\4" + self.DATA[end + 4 :]
        assert (read(damaged) == read(self.DATA)).all()

    def test_damage_in_the_last_rows_costs_these_rows_only(self) -> None:
        damaged = bytearray(self.DATA)
        damaged[-600:-590] = b"\xff" * 10
        assert mean_difference(read(bytes(damaged)), read(self.DATA)) < 3

    def test_damage_in_the_middle_is_refused(self) -> None:
        damaged = bytearray(self.DATA)
        damaged[len(damaged) // 3 : len(damaged) // 3 + 30] = b"\xff" * 30
        assert reason_of(bytes(damaged)) in {"truncated_image", "damaged_image"}


class TestJpeg:
    DATA = encoded(PHOTOGRAPH, "JPEG")

    @pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"Exif\0\0",
            b"Exif\0\0MM\0*\xff\xff\xff\xff",
            b"ICC_PROFILE\0\1",
            b"Photoshop 3.0\0008BIM\4\x04",
            b"MPF\0II*\0",
        ],
        ids=["empty", "empty exif", "broken exif", "short profile", "short photoshop", "short MPF"],
    )
    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    def test_nonsense_in_an_application_segment_does_not_matter(self, marker: int, body: bytes) -> None:
        assert (read(with_jpeg_segment(self.DATA, marker, body)) == read(self.DATA)).all()

    def test_a_cut_progressive_picture_keeps_its_orientation(self) -> None:
        exif = Image.Exif()
        exif[274] = 3
        data = encoded(PHOTOGRAPH.transpose(Image.Transpose.ROTATE_180), "JPEG", exif=exif, progressive=True)
        assert mean_difference(read(data[:-200]), read(self.DATA)) < 3

    def test_averages_alone_are_no_picture(self) -> None:
        data = encoded(PHOTOGRAPH, "JPEG", progressive=True)
        second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
        assert reason_of(data[: second + 200]) == "truncated_image"


class TestWebp:
    @pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"junk"])
    @pytest.mark.parametrize("lossless", [True, False])
    def test_metadata_that_is_cut_off_does_not_matter(self, kind: bytes, *, lossless: bool) -> None:
        exif = Image.Exif()
        exif[274] = 3
        data = encoded(PHOTOGRAPH, "WEBP", lossless=lossless, exif=exif)
        chunk = struct.pack("<4sI", kind, 1000) + b"\0" * 1000
        longer = data[:4] + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:] + chunk
        assert (read(longer[:-500]) == read(data)).all()

    def test_a_file_that_is_cut_has_that_reason(self) -> None:
        data = encoded(PHOTOGRAPH, "WEBP")
        assert reason_of(data[:4] + struct.pack("<I", 2**31) + data[8:-5000]) == "truncated_image"

    def test_a_chunk_that_claims_gigabytes_is_not_filled_up(self) -> None:
        data = encoded(PHOTOGRAPH, "WEBP")
        assert reason_of(data[:16] + struct.pack("<I", 2**31) + data[20:]) == "truncated_image"


def test_a_broken_exif_block_of_an_avif_does_not_matter() -> None:
    data = encoded(PHOTOGRAPH, "AVIF", exif=b"Exif\0\0II*\0" + b"\x08\0\0\0" + b"\0" * 40)
    broken = data.replace(b"II*\0\x08\0\0\0", b"XX*\0\xff\xff\xff\xff")
    assert broken != data
    assert (read(broken) == read(encoded(PHOTOGRAPH, "AVIF"))).all()


def test_a_flat_picture_that_is_cut_is_measured_too() -> None:
    data = encoded(Image.fromarray(np.zeros((400, 600), dtype=np.uint8)), "PNG", compress_level=0)
    assert (read(data[:-200]) <= 255).all()
    assert reason_of(data[: len(data) // 2]) == "truncated_image"


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_damaged_picture_may_have_a_third_of_the_pixels_because_it_is_read_three_times(
    image_format: str,
) -> None:
    data = encoded(plain_photograph(300, 200), image_format)
    cut = data[: -len(data) // 100]
    assert read(cut, limits=ImageLimits(max_pixels=180_000)).shape == (64, 64, 3)
    assert read(data, limits=ImageLimits(max_pixels=60_000)).shape == (64, 64, 3)
    assert reason_of(cut, ImageLimits(max_pixels=179_000)) == "truncated_image"
    assert reason_of(cut, ImageLimits(max_pixels=59_000)) == "image_too_large"


def test_a_picture_that_lacks_no_pixels_may_be_as_large_as_any_other() -> None:
    data = with_png_chunk(encoded(plain_photograph(300, 200), "PNG"), b"zTXt", b"a note\0\0 broken")
    broken = data.replace(b" broken", b" mended")  # now its checksum is wrong
    assert broken != data
    assert read(broken, limits=ImageLimits(max_pixels=60_000)).shape == (64, 64, 3)
