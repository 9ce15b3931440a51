"""The `--help` of a service: what it does, how it exits, and where its settings come from."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Iterator
from typing import NoReturn

_WIDTH = 79
_SETTINGS = (
    "Settings come from the environment (CLIPTIDE_…); docs/settings.md lists every variable. If a variable "
    "cannot be used, the process ends and prints one line that names it."
)
_NOT_A_FLAG = (
    "settings are variables and not flags, for example CLIPTIDE_QUERY_API__PORT=8080; docs/settings.md "
    "lists every variable"
)


class _Parser(argparse.ArgumentParser):
    """Says where settings come from, if somebody gives one as a flag."""

    def error(self, message: str) -> NoReturn:
        super().error(f"{message}: {_NOT_A_FLAG}" if message.startswith("unrecognized") else message)


def build_parser(
    program: str, documentation: str | None, called_as: str | None = None
) -> argparse.ArgumentParser:
    """Build a parser that has no flags; its --help shows the program's documentation and exit codes.

    `called_as` is the name by which a person has called the program, if it is another one.
    """
    name = called_as or program
    return _Parser(
        prog=name,
        description=_wrapped(inspect.cleandoc(documentation or "").replace(program, name)),
        epilog=_wrapped(_SETTINGS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _wrapped(text: str) -> str:
    """Fit a text into a terminal of 80 columns. An exit code begins a line of its own."""
    return "\n\n".join("\n".join(_lines_of(paragraph)) for paragraph in text.split("\n\n"))


def _lines_of(paragraph: str) -> Iterator[str]:
    items: list[str] = []
    for line in paragraph.splitlines():
        if items and not line[:1].isdigit():
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    for item in items:
        yield from textwrap.wrap(
            item, _WIDTH, subsequent_indent="  " if item[:1].isdigit() else "", break_on_hyphens=False
        )
