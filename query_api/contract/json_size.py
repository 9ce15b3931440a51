"""How much of a JSON body is not a picture. A parser builds objects for that part, and so it costs most."""

from __future__ import annotations

import re

import numpy as np

from schemas.json_size import is_small_json

# A picture in base64, also as a data URL, and also with `/`, `+` and line ends written as JSON escapes.
_PICTURE_BEGINS = re.compile(rb'"(?:data:[^",]{0,100},)?[A-Za-z0-9+/=_\\-]{1024}')
_LONGEST_BEGINNING = 2048
_FEW_BYTES = 16_384
MAX_CONTAINERS = 20_000  # twice as many as the largest request has


def is_small_beside_pictures(body: bytes, max_bytes: int) -> bool:
    """Whether a JSON body without its pictures has at most `max_bytes`.

    A picture counts from its opening quote to the next quote. The search ends where the rest is
    too large, so that it reads little of a body that is refused.
    """
    position = 0
    while len(body) - position > max_bytes:
        end = position + max_bytes + _LONGEST_BEGINNING
        begins = _PICTURE_BEGINS.search(body, position, end)
        if begins is None:
            return False
        max_bytes -= begins.start() - position
        if max_bytes < 0:
            return False
        closing_quote = body.find(b'"', begins.end())
        position = len(body) if closing_quote < 0 else closing_quote + 1
    return True


def has_few_containers(body: bytes) -> bool:
    """Whether JSON has at most `MAX_CONTAINERS` lists and objects: an empty one of two bytes takes 64."""
    if len(body) <= MAX_CONTAINERS or count_byte(body, b"[") + count_byte(body, b"{") <= MAX_CONTAINERS:
        return True
    return is_small_json(body, max_containers=MAX_CONTAINERS)


def count_byte(text: bytes, byte: bytes) -> int:
    """Return what `text.count(byte)` does. That looks at one byte after another, numpy at many at once."""
    if len(text) <= _FEW_BYTES:
        return text.count(byte)
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == byte[0]))
