"""`python -m tools.flags_table`: the table of the command line's flags and their variables, from the code."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from cliptide.__main__ import CONTEXT_SETTINGS, main
from tools.settings_table import cell

PREFIX = str(CONTEXT_SETTINGS["auto_envvar_prefix"])


def commands_of(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below a group with its words."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name), command


def variable_of(option: click.Option, words: tuple[str, ...]) -> str:
    """Return the variable that click reads: the flag's own, or one made of the command's words."""
    if option.envvar is not None:
        return str(option.envvar)
    return "_".join([PREFIX, *(word.upper().replace("-", "_") for word in words), str(option.name).upper()])


def build_table() -> str:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for words, command in commands_of(main):
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                flag = max(option.opts, key=len)
                rows.setdefault((flag, variable_of(option, words), option.help or ""), []).append(
                    " ".join(words)
                )
    lines = ["| flag | variable | of | |", "|---|---|---|---|"]
    for (flag, variable, explanation), commands in sorted(
        rows.items(), key=lambda row: (-len(row[1]), row[1], row[0])
    ):
        lines.append(f"| `{flag}` | `{variable}` | {', '.join(commands)} | {cell(explanation)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(build_table() + "\n")
