"""The streams of a terminal that does not know every character."""

from __future__ import annotations

import codecs
import io
from typing import Any


def escape_what_cannot_be_shown(*streams: Any) -> None:
    """Write a character that the encoding of a stream lacks as an escape sequence.

    Python would end the command with a traceback.
    """
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="backslashreplace")
