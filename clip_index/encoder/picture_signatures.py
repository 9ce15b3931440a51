"""Which bytes are a picture: the first bytes of a file say so, whatever its name or media type says.

This knows more formats than the encoder decodes, because what decodes a picture may be another machine.
"""

from __future__ import annotations

NUM_SIGNATURE_BYTES = 32
"""How many of a file's first bytes tell its format."""

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
_BRANDS = {  # of ISO base media files: pictures share this container with films
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIF",
    b"heix": "HEIF",
    b"heim": "HEIF",
    b"heis": "HEIF",
    b"hevc": "HEIF",
    b"hevx": "HEIF",
    b"mif1": "HEIF",
    b"mif2": "HEIF",
    b"msf1": "HEIF",
}


def picture_format(head: bytes) -> str | None:
    """Return the format of the picture that begins with these bytes; None if they begin no picture."""
    if (name := next((name for start, name in _STARTS.items() if head.startswith(start)), None)) is not None:
        return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        brands = (head[at : at + 4] for at in (8, *range(16, len(head), 4)))  # the main one first
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two reserved numbers, without which any BM is a BMP
        return "BMP"
    if head[:4] == b"\0\0\1\0" and head[4:6] != bytes(2):
        return "icon"
    return None
