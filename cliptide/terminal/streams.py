"""The streams of a terminal that does not know every character, has no width, or is not there."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any


def prepare_streams() -> None:
    """Let a command write whatever it finds, to whatever it was started with."""
    escape_what_cannot_be_shown(sys.stdout, sys.stderr)
    replace_closed_streams()
    forget_a_width_of_none()


def replace_closed_streams() -> None:
    """Write to nowhere what a shell has closed (`>&-`): Python has None there, which nobody expects."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end


def forget_a_width_of_none() -> None:
    """Leave COLUMNS=0 out, which some containers and consoles set: a table of no width shows nothing."""
    if os.environ.get("COLUMNS", "").strip() in ("", "0", "1"):
        os.environ.pop("COLUMNS", None)


def escape_what_cannot_be_shown(*streams: Any) -> None:
    """Write a character that the encoding of a stream lacks as an escape sequence.

    Python would end the command with a traceback.
    """
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="backslashreplace")
