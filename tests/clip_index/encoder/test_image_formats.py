"""Which files are pictures: the bytes decide, and and every format of phones and scanners is read."""

from __future__ import annotations

import io
import struct
import sys
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import make_thumbnail
from clip_index.errors import BadContent
from tests.clip_index.encoder.pictures import (
    LIMITS,
    encoded,
    filled,
    mean_difference,
    plain_photograph,
    read,
    reason_of,
    reference,
)

FORMATS = {
    "AVIF": ("AVIF", {"quality": 90}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, JPEG inside": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "BigTIFF": ("TIFF", {"big_tiff": True}),
    "BMP": ("BMP", {}),
    "JPEG 2000": ("JPEG2000", {}),
    "JPEG 2000, codestream alone": ("JPEG2000", {"no_jp2": True}),
    "JPEG of several pictures": ("MPO", {"save_all": True, "append_images": [filled("RGB", "red")]}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_photograph_is_the_same_in_every_format(name: str) -> None:
    image = plain_photograph(300, 200)
    image_format, options = FORMATS[name]
    data = encoded(image, image_format, **options)
    assert mean_difference(read(data), reference(image)) < 3
    assert make_thumbnail(data, 32, LIMITS).startswith(b"RIFF")


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_of_an_icon_the_largest_picture_counts(bitmap_format: str) -> None:
    image = plain_photograph(64, 64)
    data = encoded(image, "ICO", sizes=[(16, 16), (32, 32), (64, 64)], bitmap_format=bitmap_format)
    assert mean_difference(read(data), reference(image)) < 1


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_the_limit_of_pixels(name: str) -> None:
    image_format, options = FORMATS[name]
    data = encoded(plain_photograph(300, 200), image_format, **options)
    assert reason_of(data, ImageLimits(max_pixels=10_000)) == "image_too_large"


@pytest.mark.parametrize(("fourth_of", "reason"), [(-1, "image_too_large"), (100_000, "image_too_large")])
def test_a_bitmap_in_an_icon_cannot_claim_another_size(fourth_of: int, reason: str) -> None:
    data = bytearray(encoded(filled("RGB", "red", (16, 16)), "ICO", sizes=[(16, 16)], bitmap_format="bmp"))
    struct.pack_into("<i", data, 22 + 4, fourth_of)
    assert reason_of(bytes(data)) == reason


def test_a_large_picture_of_a_wavelet_format_is_decoded_at_a_fraction_of_its_size() -> None:
    image = plain_photograph(1600, 1200)
    assert mean_difference(read(encoded(image, "JPEG2000")), reference(image)) < 2


@pytest.mark.parametrize(
    ("size", "levels", "reason"),
    [
        pytest.param((2_400, 2_200), 1, "image_too_large", id="without levels of detail"),
        pytest.param((6_000, 900), 6, "image_too_large", id="too narrow to be halved"),
        pytest.param((2_400, 2_200), 6, None, id="halved"),
    ],
)
def test_a_picture_of_a_wavelet_format_that_is_decoded_whole_may_have_fewer_pixels(
    size: tuple[int, int], levels: int, reason: str | None
) -> None:
    data = encoded(filled("L", 90, size), "JPEG2000", num_resolutions=levels)
    limits = ImageLimits(max_pixels=16_000_000)
    if reason is None:
        assert read(data, limits=limits).shape == (64, 64, 3)
    else:
        assert reason_of(data, limits) == reason


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        pytest.param(filled("L", 90), {}, 90, id="grey"),
        pytest.param(filled("1", 1), {"compression": "group4"}, 255, id="a fax"),
        pytest.param(filled("I;16", 90 * 256), {}, 90, id="16 bits"),
        pytest.param(filled("F", 0.5), {}, 255, id="floating point, scaled to its greatest"),
        pytest.param(filled("F", float("nan")), {}, 0, id="not a number"),
        pytest.param(filled("RGBA", (1, 2, 3, 0)), {}, 255, id="invisible"),
        pytest.param(filled("CMYK", (0, 0, 0, 255)), {}, 0, id="ink"),
        pytest.param(filled("LAB", (255, 128, 128)), {}, 255, id="Lab"),
    ],
)
def test_what_scanners_and_presses_write_is_read(
    image: Image.Image, options: dict[str, object], expected: int
) -> None:
    np.testing.assert_allclose(read(encoded(image, "TIFF", **options)), expected, atol=2)


def grey_scan(values: NDArray[np.generic], *, white_is_zero: bool) -> bytes:
    """A TIFF file of one strip, as scanners of films write it."""
    bits, floats = values.dtype.itemsize * 8, values.dtype.kind == "f"
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 8}
    tags |= {277: 1, 278: height, 279: values.nbytes, 339: 3 if floats else 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + directory


@pytest.mark.parametrize(
    ("kind", "white_is_zero"),
    [
        *((kind, False) for kind in ("uint8", "uint16", "uint32", "float32")),
        *((kind, True) for kind in ("uint8", "uint16", "float32")),  # Pillow refuses the fourth
    ],
)
def test_a_grey_scan_is_no_negative_whatever_its_depth(kind: str, white_is_zero: bool) -> None:
    grey = plain_photograph(300, 200).convert("L")
    light = np.asarray(grey).astype(np.float64) / 255
    light = 1 - light if white_is_zero else light
    light[0, :2] = 0, 1  # so that both ends of the scale are there
    greatest = 1 if kind == "float32" else np.iinfo(kind).max
    scan = grey_scan((light * greatest).astype(kind), white_is_zero=white_is_zero)
    assert mean_difference(read(scan), reference(grey)) < 3


@pytest.mark.parametrize(
    ("marker", "bits", "kind"),
    [
        pytest.param(0xC3, 8, "lossless", id="lossless"),
        pytest.param(0xCB, 8, "lossless", id="lossless, arithmetic"),
        pytest.param(0xC5, 8, "hierarchical", id="hierarchical"),
        pytest.param(0xF7, 8, "near-lossless", id="JPEG-LS"),
        pytest.param(0xC1, 12, "12-bit", id="of 12 bits"),
        pytest.param(0xC2, 12, "12-bit", id="progressive, of 12 bits"),
    ],
)
def test_a_kind_of_jpeg_that_no_browser_reads_is_unsupported_and_not_called_damaged(
    marker: int, bits: int, kind: str
) -> None:
    data = bytearray(encoded(plain_photograph(300, 200), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4] = marker, bits
    with pytest.raises(BadContent, match=f"unsupported_image: a {kind}"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("compression", "name"), [(50001, "WebP"), (34661, "JBIG"), (34887, "LERC"), (50002, "JPEG XL")]
)
def test_a_tiff_of_a_compression_that_is_not_read_is_unsupported(compression: int, name: str) -> None:
    scan = grey_scan(np.zeros((20, 30), np.uint8), white_is_zero=False)
    data = scan.replace(struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, compression))
    with pytest.raises(BadContent, match=f"unsupported_image: a TIFF compressed with {name}"):
        read(data)


def test_a_tiff_of_pixels_that_are_not_read_is_unsupported() -> None:
    data = grey_scan(np.zeros((20, 30), np.float64), white_is_zero=False)
    with pytest.raises(BadContent, match="unsupported_image"):
        read(data)


def test_a_scan_that_lies_on_its_side_is_turned_by_its_tag() -> None:
    upright = plain_photograph(300, 200)
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "TIFF", tiffinfo={274: 6})
    assert mean_difference(read(data), reference(upright)) < 1


def test_an_avif_is_turned_as_its_container_says() -> None:
    upright = plain_photograph(300, 200)
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "AVIF", exif=exif, quality=90)
    assert mean_difference(read(data), reference(upright)) < 3


class TestHeic:
    """Pictures of iPhones need `pillow-heif`, which is found when the first one arrives."""

    BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"hevc")

    @pytest.mark.parametrize("brand", BRANDS)
    def test_without_the_library_the_reason_names_it(
        self, brand: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        assert reason_of(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + b"\0" * 40) == "unsupported_image"

    def test_with_the_library_its_plugin_reads_the_picture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class HeifImageFile(ImageFile.ImageFile):
            def _open(self) -> None:
                self._size, self._mode = (40, 30), "RGB"
                self.im = filled("RGB", "red").im

        module = ModuleType("pillow_heif")
        module.HeifImageFile = HeifImageFile  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pillow_heif", module)
        assert (read(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40) == (255, 0, 0)).all()

    def test_a_real_file_is_read(self) -> None:
        plugin = pytest.importorskip("pillow_heif")
        image = plain_photograph(300, 200)
        output = io.BytesIO()
        plugin.from_pillow(image).save(output, quality=90)
        assert mean_difference(read(output.getvalue()), reference(image)) < 3

    def test_an_avif_under_a_general_brand_is_an_avif(self) -> None:
        data = encoded(plain_photograph(), "AVIF")
        general = data.replace(b"ftypavif", b"ftypmif1", 1)
        assert (read(general) == read(data)).all()
