"""The command line: `cliptide publish`, `search`, `delete`, `dead-letters`, `verify`, `snapshot`."""

from __future__ import annotations

from typing import Any

import click

from clip_index.errors import ClipIndexError
from cliptide.dead_letters.command import dead_letters_command
from cliptide.publishing.delete_command import delete_command
from cliptide.publishing.publish_command import publish_command
from cliptide.searching.query_client import QueryServiceError
from cliptide.searching.search_command import search_command
from cliptide.snapshot.command import snapshot_command
from cliptide.terminal.console_logs import quieten_logs
from cliptide.verify.command import verify_command
from event_log.errors import EventLogError

CONTEXT_SETTINGS = {
    "auto_envvar_prefix": "CLIPTIDE",
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "show_default": True,
}


class Commands(click.Group):
    """Reports a failure of Kafka, the service or the index in one line. Other errors keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (EventLogError, QueryServiceError, ClipIndexError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="cliptide")
def main() -> None:
    """Publish uploads, which are searchable within a second, and look after their index.

    Every flag can be set by a variable: CLIPTIDE_, the command and the flag (CLIPTIDE_PUBLISH_RATE=50).
    Flags that several commands share have variables of their own; --help names them.
    """
    quieten_logs()


main.add_command(publish_command)
main.add_command(search_command)
main.add_command(delete_command)
main.add_command(dead_letters_command)
main.add_command(verify_command)
main.add_command(snapshot_command)

if __name__ == "__main__":
    main()
