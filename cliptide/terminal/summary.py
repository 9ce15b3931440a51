"""The last line of a command: a sentence for a person, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from cliptide.terminal.options import option


def json_option(command_name: str) -> Callable[[Any], Any]:
    """Add --json to a command whose summary is JSON in a pipe already."""
    return option(
        "--json",
        "as_json",
        envvar=f"CLIPTIDE_{command_name.replace(' ', '_').replace('-', '_').upper()}_JSON",
        is_flag=True,
        help="Print the summary as JSON at a terminal, too.",
    )


def print_summary(fields: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    """Print one line: the sentence at a terminal, JSON in a pipe or if it is asked for."""
    is_for_a_person = sys.stdout.isatty() and not as_json
    click.echo(sentence if is_for_a_person else json.dumps(fields))


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
