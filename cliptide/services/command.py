"""`cliptide serve` and `cliptide consume`: the same as `python -m query_api` and `python -m consumer`."""

from __future__ import annotations

from typing import Any

import click

_PASSED_ON: dict[str, Any] = {
    "add_help_option": False,  # the service's own --help lists its exit codes
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}


@click.command("serve", **_PASSED_ON)
@click.pass_context
def serve_command(context: click.Context) -> None:
    """Run a query service until SIGTERM or SIGINT."""
    from query_api.__main__ import main  # here: the other command does not need it

    raise SystemExit(main(context.args, context.command_path))


@click.command("consume", **_PASSED_ON)
@click.pass_context
def consume_command(context: click.Context) -> None:
    """Run a consumer until SIGTERM or SIGINT."""
    from consumer.__main__ import main  # here: the other command does not need it

    raise SystemExit(main(context.args, context.command_path))
