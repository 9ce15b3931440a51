"""How much a parser would build for JSON, told before it is parsed.

A list, an object or a number takes up to thirty times its bytes in memory, so bytes alone bound little.
"""

from __future__ import annotations

import re

# The last text may have no end. It is taken up to the end of the data, because a failed match would make
# the search begin again at the next quote, and its time would grow with the square of the length.
_TEXT = re.compile(rb'"[^"]*"?')


def is_small_json(value: bytes, *, max_containers: int, max_commas: int | None = None) -> bool:
    """Whether JSON has at most so many lists and objects, and so many commas, outside of its texts.

    Texts are taken out only if there are too many of either with them.
    """
    if len(value) <= max_containers and max_commas is None:
        return True
    return _is_within(value, max_containers, max_commas) or _is_within(
        _without_texts(value), max_containers, max_commas
    )


def _without_texts(value: bytes) -> bytes:
    """Remove the texts. Escapes go first, so that every quote that is left begins or ends a text."""
    return _TEXT.sub(b"", value.replace(rb"\\", b"").replace(rb"\"", b""))


def _is_within(text: bytes, max_containers: int, max_commas: int | None) -> bool:
    has_few_containers = text.count(b"[") + text.count(b"{") <= max_containers
    return has_few_containers and (max_commas is None or text.count(b",") <= max_commas)
