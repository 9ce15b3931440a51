"""`cliptide mapping`: show the presets, and what an event becomes under a mapping."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import click

from cliptide.terminal.options import option
from cliptide.terminal.plain_text import without_controls
from schemas.errors import BadEvent
from schemas.json_format import json_from_event
from schemas.mapping.loading import BadMapping, load_mapping, preset_names
from schemas.mapping.rules import EventMapping, Mapped
from schemas.validation import validate_event

_NOW_MS = 0  # a record's timestamp; events that have no time of their own show 1970


@click.group("mapping", short_help="Try a mapping's rules on a record.")
def mapping_command() -> None:
    """Try the rules that turn a platform's own records into upload events (CLIPTIDE_MAPPING)."""


@mapping_command.command("list")
def list_command() -> None:
    """List the presets."""
    for name in preset_names():
        click.echo(name)


@mapping_command.command("show")
@click.argument("name", type=click.Choice(preset_names()))
def show_command(name: str) -> None:
    """Print a preset, to be copied and changed."""
    click.echo((files("schemas.mapping") / "presets" / f"{name}.yaml").read_text("utf-8"), nl=False)


@mapping_command.command("try")
@click.argument("mapping")
@option("--key", help="The record's key.")
@option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of the record.")
def try_command(mapping: str, key: str | None, headers: Sequence[str]) -> None:
    """Print the event that MAPPING makes of a record.

    The record's value is read from standard input.

    MAPPING is a file or the name of a preset. The exit code is 0 for an event and for a record that is
    passed over, 1 for a record that would be set aside or to which no rule applies, 2 for a mapping that
    cannot be used.

      cliptide mapping try s3-notification < record.json
    """
    try:
        rules = load_mapping(mapping)
    except BadMapping as error:
        raise click.UsageError(str(error)) from error
    record: dict[str, Any] = {
        "key": None if key is None else key.encode(),
        "value": sys.stdin.buffer.read(),
        "headers": [_header(text) for text in headers],
    }
    sys.exit(_report(rules, record))


def _header(text: str) -> tuple[str, bytes]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name, value.encode()


def _report(rules: EventMapping, record: dict[str, Any]) -> int:
    try:
        mapped = rules.read(**record, timestamp_ms=_NOW_MS)
        if mapped is not None and mapped.event is not None:
            validate_event(mapped.event)
    except BadEvent as error:
        click.echo(f"set aside: {without_controls(str(error))}", err=True)
        return 1
    if mapped is None:
        click.echo("no rule applies:", err=True)
        for name, reason in rules.explain(**record):
            click.echo(f"  {name}: {without_controls(reason)}", err=True)
        return 1
    return _print(mapped)


def _print(mapped: Mapped) -> int:
    click.echo(f"rule: {mapped.rule}", err=True)
    if mapped.event is None:
        click.echo("passed over", err=True)
    else:
        click.echo(json.dumps(json_from_event(mapped.event), ensure_ascii=False, indent=2))
    return 0
