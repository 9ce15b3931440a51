"""The `--help` of a service: what it does, how it exits, and where its settings come from."""

from __future__ import annotations

import argparse
import inspect

_SETTINGS = """\
Settings come from the environment (CLIPTIDE_…); docs/settings.md lists every variable. If a variable cannot
be used, the process ends and prints one line that names it."""


def build_parser(
    program: str, documentation: str | None, called_as: str | None = None
) -> argparse.ArgumentParser:
    """Build a parser that has no flags; its --help shows the program's documentation and exit codes.

    `called_as` is the name by which a person has called the program, if it is another one.
    """
    name = called_as or program
    return argparse.ArgumentParser(
        prog=name,
        description=inspect.cleandoc(documentation or "").replace(program, name),
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
