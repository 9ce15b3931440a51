"""`python -m cliptide.demo`: runs everything on this machine, from upload events to answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cliptide.demo.child_process import ChildDied
from cliptide.demo.embedded_broker import EmbeddedBrokerError
from cliptide.demo.report import DemoReport
from cliptide.demo.run import DemoOptions, DirectoryNotEmpty, running_demo
from cliptide.demo.services import NotReadyInTime
from cliptide.demo.stream import NotPublished
from cliptide.searching.query_client import QueryServiceError
from cliptide.searching.searchable import NotSearchableInTime
from cliptide.terminal.console_logs import quieten_logs
from cliptide.terminal.options import option
from event_log.errors import EventLogError

FAILURES = (
    ChildDied,
    DirectoryNotEmpty,
    EmbeddedBrokerError,
    EventLogError,
    NotPublished,
    NotReadyInTime,
    NotSearchableInTime,
    QueryServiceError,
)
INTERRUPTED = 130
PLAIN_WIDTH = 110


CONTEXT_SETTINGS = {
    "auto_envvar_prefix": "CLIPTIDE_DEMO",
    "help_option_names": ["-h", "--help"],
    "show_default": True,
}


@click.command(context_settings=CONTEXT_SETTINGS)
@option("--once", is_flag=True, help="Exit after the sample queries. The last line is a JSON report.")
@option("--num-images", type=click.IntRange(1), default=2_000, help="Pictures in the catalogue.")
@option("--num-texts", type=click.IntRange(0), default=200, help="Texts in the catalogue.")
@option("--rate", type=click.FloatRange(0, min_open=True), default=60.0, help="Uploads per second.")
@option("--seed", default=1, help="The seed of the catalogue: another seed gives another catalogue.")
@option("--timeout", "timeout_seconds", default=600.0, help="Seconds to wait for the last upload.")
@option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="An empty directory, which keeps index, logs and gallery. Default: a temporary one.",
)
def main(once: bool, **flags: Any) -> None:
    """Run a broker, a consumer and a query service, publish a catalogue, and search it.

    With --once the exit code is 0 only if nothing was lost and the sample queries found what they
    asked for (precision@8 of at least 0.9 over the text queries).
    """
    quieten_logs()
    options, console = DemoOptions(**flags), Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    try:
        report = _run(options, console, once)
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        console.print("stopped")
        raise SystemExit(INTERRUPTED) from None
    if once:
        click.echo(report.as_json())
    raise SystemExit(0 if report.is_good else 1)


def _run(options: DemoOptions, console: Console, once: bool) -> DemoReport:
    with running_demo(options, console) as demo:
        report, gallery = demo.measure()
        console.print(report.in_words(), highlight=False, soft_wrap=True)
        if not once:
            try:
                demo.stay(gallery)
            except KeyboardInterrupt:
                console.print("stopping")
        elif options.directory is not None:
            console.print(f"gallery of the answers: {gallery.as_uri()}", soft_wrap=True)
        return report


if __name__ == "__main__":
    main()
