"""Makes texts of uploads and records safe to show on a terminal."""

from __future__ import annotations

import re

from rich.text import Text

# Control characters start escape sequences; the other characters end a line or turn the writing direction.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def without_controls(text: str) -> str:
    """Escape what a terminal would obey instead of showing, such as a new title or a cleared screen."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def plain(text: str) -> Text:
    """Return the text for a cell of a table, without controls, and with brackets taken literally."""
    return Text(without_controls(text))
