"""What is wrong with a JSON text, in the words of whoever wrote it. The parser has words of its own."""

from __future__ import annotations

import re

_PLACE = re.compile(r" at line \d+ column \d+$")
_HALF = "a text holds half of a surrogate pair, such as \\ud83d alone: it was cut inside a character"
_PROBLEMS = {  # the parser's words → ours
    "hex escape": _HALF,
    "invalid unicode code point": "it is not UTF-8",
    "recursion limit": "it is nested too deeply",
    "control character": "a text holds a line break or another control character; write \\n for a line break",
    "key must be a string": "names must be texts in double quotes",
    "invalid escape": "a text holds an unknown escape; write \\\\ for a backslash",
    "EOF": "it ends too early",
    "trailing characters": "something follows its end",
}


def json_problem(text: bytes | str, parser_message: str) -> str:
    """Say what is wrong with a text that the parser refused with this message, and where."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if not data.strip():
        return "it is empty"
    if b"\0" in data[:4]:
        return "it is UTF-16 or UTF-32; send UTF-8"
    place = _PLACE.search(parser_message)
    reason = parser_message.removeprefix("Invalid JSON: ")
    ours = next((ours for theirs, ours in _PROBLEMS.items() if theirs in reason), None)
    return reason if ours is None else ours + (place[0] if place else "")
