"""The first bytes say whether a file is a picture."""

from __future__ import annotations

import pytest

from clip_index.encoder import image_formats
from clip_index.encoder.picture_signatures import NUM_SIGNATURE_BYTES, picture_format
from fakes.hash_encoder import draw_picture

PICTURES = {
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "PNG": draw_picture(1),
    "GIF": b"GIF89a\x01\0\x01\0",
    "WebP": b"RIFF\x24\0\0\0WEBPVP8 ",
    "TIFF": b"MM\0*\0\0\0\x08",
    "BMP": b"BM\x36\0\x0c\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0",
    "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0",
    "JPEG XL": b"\xff\x0a\xfa\x1f",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "icon": b"\0\0\1\0\1\0\x10\x10",
}
OTHERS = {
    "nothing": b"",
    "words": b"a red dress",
    "words that begin like a BMP": b"BMW builds cars in Munich",
    "a film": b"\0\0\0\x20ftypisom\0\0\0\0",
    "a sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "a document": b"%PDF-1.7",
    "an archive": b"PK\x03\x04",
    "zeros": bytes(64),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_known_by_its_first_bytes(name: str) -> None:
    assert picture_format(PICTURES[name][:NUM_SIGNATURE_BYTES]) == name


@pytest.mark.parametrize(
    "start",
    [
        image_formats._JPEG,
        image_formats.PNG_SIGNATURE,
        *image_formats.JPEG_2000,
        *image_formats._SIGNATURES,
        *image_formats._TIFF,
        *(b"\0\0\0\x20ftyp" + brand + bytes(4) for brand in image_formats._AVIF_BRANDS),
        *(b"\0\0\0\x20ftyp" + brand + bytes(4) for brand in image_formats._HEIF_BRANDS),
        *(b"\0\0\0\x20ftypmiaf\0\0\0\0" + brand for brand in image_formats._AVIF_BRANDS),
    ],
)
def test_what_the_encoder_reads_is_known_as_a_picture(start: bytes) -> None:
    head = (start if start != image_formats.JPEG_2000[0] else start + b"\r\n\x87\n").ljust(32, b"\0")
    assert image_formats.opener_for(head)
    assert picture_format(head) is not None


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_what_is_no_picture_is_told_from_one(data: bytes) -> None:
    assert picture_format(data) is None
