"""The `--help` of a service: what it does, how it exits, and where its settings come from."""

from __future__ import annotations

import argparse
import inspect

_SETTINGS = """\
Settings come from the environment (CLIPTIDE_…); docs/settings.md lists every variable. If a variable cannot
be used, the process ends and prints one line that names it."""


def build_parser(program: str, documentation: str | None) -> argparse.ArgumentParser:
    """Build a parser that has no flags; its --help shows the program's documentation and exit codes."""
    return argparse.ArgumentParser(
        prog=program,
        description=inspect.cleandoc(documentation or ""),
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
