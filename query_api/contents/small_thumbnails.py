"""Small thumbnails out of the kept ones, for screens that need fewer pixels."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from threading import Lock

from aiohttp import web

from clip_index.encoder.image_headers import ImageLimits, open_image
from clip_index.encoder.image_repair import DECODE_ERRORS
from clip_index.encoder.images import make_thumbnail
from clip_index.errors import BadContent

SMALL_SIDE = 256
MAX_KEPT_BYTES = 16 * 2**20


class SmallThumbnails:
    """Makes small thumbnails, and keeps the latest ones. Threads may share it."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()  # digest of a kept thumbnail → the small one
        self._num_bytes = 0
        self._lock = Lock()

    def of(self, thumbnail: bytes) -> bytes:
        """Return a thumbnail of at most `SMALL_SIDE` pixels; one that is small enough as it is. Blocking."""
        digest = blake2b(thumbnail, digest_size=16).digest()
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest]
        small = _shrunk(thumbnail)
        if small is not thumbnail:
            self._keep(digest, small)
        return small

    def _keep(self, digest: bytes, small: bytes) -> None:
        with self._lock:
            self._num_bytes += len(small) - len(self._kept.pop(digest, b""))
            self._kept[digest] = small
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])


SMALL_THUMBNAILS = web.AppKey("small_thumbnails", SmallThumbnails)


def _shrunk(thumbnail: bytes) -> bytes:
    """Shrink a thumbnail. One that cannot be read is answered as it is kept."""
    try:
        if max(open_image(thumbnail, ImageLimits()).size) <= SMALL_SIDE:
            return thumbnail
        return make_thumbnail(thumbnail, SMALL_SIDE, ImageLimits())
    except (BadContent, *DECODE_ERRORS):
        return thumbnail
