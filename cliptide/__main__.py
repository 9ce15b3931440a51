"""The command line: `cliptide publish`, `search`, `doctor`, `serve` and the others of its table."""

from __future__ import annotations

import errno
from typing import Any

import click
from click.shell_completion import CompletionItem

from cliptide.command_table import COMMANDS, LazyCommands
from cliptide.terminal.interrupts import interrupts_kept
from cliptide.terminal.streams import prepare_streams

CONTEXT_SETTINGS = {
    "auto_envvar_prefix": "CLIPTIDE",
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "show_default": True,
}

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(click.Group):
    """Imports the one command that is run, and reports its failure in one line.

    That is a failure of Kafka, the query service or the index, or a full disk behind the output. Other
    errors keep their traceback.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands = LazyCommands()

    def main(self, *args: Any, **kwargs: Any) -> Any:
        prepare_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interrupts_kept():
                return super().invoke(ctx)
        except Exception as error:
            if _is_failure(error):
                raise click.ClickException(str(error)) from error
            if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
                raise click.ClickException(f"the output cannot be written: {error.strerror}") from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries without importing the commands, as the base class would."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names without importing the commands, as the base class would."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        flags = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=COMMANDS[name].summary) for name in names), *flags]


def _is_failure(error: Exception) -> bool:
    from clip_index.errors import ClipIndexError  # here: `cliptide --help` needs none of them
    from cliptide.searching.query_client import QueryServiceError
    from event_log.errors import EventLogError

    return isinstance(error, (EventLogError, QueryServiceError, ClipIndexError))


@click.group(cls=Commands, context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="cliptide")
def main() -> None:
    """Publish uploads, which are searchable within a second, and look after their index.

    Every flag can be set by a variable: CLIPTIDE_, the command and the flag (CLIPTIDE_PUBLISH_RATE=50).
    Flags that several commands share have variables of their own; --help names them.
    """
    from cliptide.terminal.console_logs import quieten_logs  # here: `cliptide --help` writes no logs

    quieten_logs()


if __name__ == "__main__":
    main()
