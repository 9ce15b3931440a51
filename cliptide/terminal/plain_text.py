"""What uploads and records hold, as a terminal may show it."""

from __future__ import annotations

import re

from rich.text import Text

# Control characters begin escape sequences, others turn the direction of what follows or end a line.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def without_controls(text: str) -> str:
    """Write out what a terminal would obey instead of showing it: a title, a colour, a cleared screen."""
    return _OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def plain(text: str) -> Text:
    """The same as a cell of a table, in which brackets are brackets and no markup."""
    return Text(without_controls(text))
