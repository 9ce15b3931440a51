"""Records of every kind that can never become an upload, as faulty producers and attackers send them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from benchmarks.clients.photographs import crop_jpegs
from schemas.avro.format import write_avro
from schemas.events import Content, ImageContent, TextContent, UploadEvent

Poison = Callable[[int], tuple[bytes | None, bytes]]
"""From a number to a record's key and value."""


def build_poison() -> Sequence[Poison]:
    """Build one record of each kind: undecodable, without key, with a wrong key, not a picture, half a
    picture, a decompression bomb, a blank text.

    A text that is too long is none of them: its beginning is indexed."""
    jpeg = crop_jpegs(1, 320, 240)[0]
    bomb, noise = _png_bomb(), os.urandom(20_000)
    return (
        lambda n: (b"poison-%d" % n, noise),
        lambda n: (None, _upload(n, TextContent("no key"))),
        lambda n: (b"another", _upload(n, TextContent("another key"))),
        lambda n: (b"poison-%d" % n, _upload(n, ImageContent(noise))),
        lambda n: (b"poison-%d" % n, _upload(n, ImageContent(jpeg[: len(jpeg) // 2]))),
        lambda n: (b"poison-%d" % n, _upload(n, ImageContent(bomb))),
        lambda n: (b"poison-%d" % n, _upload(n, TextContent("   "))),
    )


def _upload(number: int, content: Content) -> bytes:
    """Encode an upload without the checks of our own publisher."""
    content_id = f"poison-{number}"
    now = datetime.now(timezone.utc)
    return write_avro(UploadEvent(content_id, content_id, "benchmark", now, content))


def _png_bomb() -> bytes:
    """Build a PNG of 20 kB whose header announces 900 million pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(20_000_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
