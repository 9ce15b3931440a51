"""What a service's command line tells: how it ends, and where its settings come from."""

from __future__ import annotations

import argparse
import inspect

_SETTINGS = """\
settings come from the environment (CLIPTIDE_…); docs/settings.md lists every variable. One that cannot be
used ends the process with a line that names it."""


def build_parser(program: str, documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser without flags, whose --help shows the program's documentation, exit codes included."""
    return argparse.ArgumentParser(
        prog=program,
        description=inspect.cleandoc(documentation or ""),
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
