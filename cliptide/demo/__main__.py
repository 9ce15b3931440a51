"""`python -m cliptide.demo`: runs everything on this machine, from upload events to answers."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console

from clip_index.errors import IndexRefused
from clip_index.storage.shard_store import StoreTrouble
from cliptide.demo.address import PortTaken, has_desktop, open_browser
from cliptide.demo.child_process import LOOPBACK, ChildDied
from cliptide.demo.embedded_broker import EmbeddedBrokerError
from cliptide.demo.engine import NoEngine
from cliptide.demo.kept_consumer import ConsumerStopped
from cliptide.demo.report import DemoReport
from cliptide.demo.run import DemoOptions, DemoRun, DirectoryNotEmpty, running_demo
from cliptide.demo.services import NotReadyInTime
from cliptide.demo.uploads.stream import NotPublished
from cliptide.searching.query_client import QueryServiceError
from cliptide.searching.searchable import NotSearchableInTime
from cliptide.terminal.console_logs import quieten_logs
from cliptide.terminal.interrupts import interrupts_kept
from cliptide.terminal.numbers import FiniteRange
from cliptide.terminal.options import option
from cliptide.terminal.paths import PathType
from event_log.errors import EventLogError
from service.sections import root_from_text

FAILURES = (
    ChildDied,
    DirectoryNotEmpty,
    EmbeddedBrokerError,
    EventLogError,
    IndexRefused,
    NoEngine,
    NotPublished,
    NotReadyInTime,
    NotSearchableInTime,
    PortTaken,
    QueryServiceError,
    StoreTrouble,
)
INTERRUPTED = 130
PLAIN_WIDTH = 110
MAX_CONTENTS = 100_000  # an id has five digits

CONTEXT_SETTINGS = {
    "auto_envvar_prefix": "CLIPTIDE_DEMO",
    "help_option_names": ["-h", "--help"],
    "show_default": True,
}


def _ip_address(_: click.Context, param: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(LOOPBACK if value == "localhost" else value))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not an IP address; 0.0.0.0 stands for all of this machine", param=param
        ) from error


def _http_url(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{value!r} is not an address such as http://demo.example", param=param)
    return value.rstrip("/")


def _bucket_url(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        root = None if value is None else root_from_text(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error
    if isinstance(root, Path):
        raise click.BadParameter(f"{value!r} is no bucket: --directory names a directory", param=param)
    return root


@click.command(context_settings=CONTEXT_SETTINGS)
@option("--once", is_flag=True, help="Exit after the sample queries. The last line is a JSON report.")
@option("--host", default=LOOPBACK, callback=_ip_address, help="IP address at which the page is served.")
@option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port of the page. 0 stands for any. Default: 8080, or the next one that is free.",
)
@option(
    "--public-url",
    callback=_http_url,
    help="Address at which others reach the page, for the links of pictures. Default: http://HOST:PORT.",
)
@option("--browser/--no-browser", default=True, help="Open the page in a browser, if there is a desktop.")
@option(
    "--num-images", type=click.IntRange(1, MAX_CONTENTS), default=2_000, help="Pictures in the catalogue."
)
@option("--num-texts", type=click.IntRange(0, MAX_CONTENTS), default=200, help="Texts in the catalogue.")
@option("--rate", type=FiniteRange(0, min_open=True), default=60.0, help="Uploads per second.")
@option("--seed", default=1, help="The seed of the catalogue: another seed gives another catalogue.")
@option(
    "--timeout",
    "timeout_seconds",
    type=FiniteRange(0),
    default=600.0,
    help="Seconds to wait for the last upload.",
)
@option(
    "--reference-folder",
    "reference_folders",
    multiple=True,
    type=PathType(exists=True, file_okay=False, path_type=Path),
    help="A folder that file:// references may name, beside the demo's own. May be given several times.",
)
@option(
    "--directory",
    type=PathType(file_okay=False, path_type=Path),
    help="An empty directory, which keeps index, logs and gallery. Default: a temporary one.",
)
@option(
    "--root",
    "bucket",
    callback=_bucket_url,
    help="A bucket for the index, such as s3://bucket/demo. Default: a directory on this machine.",
)
@option(
    "--engine",
    type=click.Choice(["directory", "opensearch"]),
    default="directory",
    help="What holds the index. opensearch needs one at CLIPTIDE_OPENSEARCH__URL (http://127.0.0.1:9200).",
)
def main(once: bool, browser: bool, **flags: Any) -> None:
    """Run a broker, a consumer and a query service, publish a catalogue, and search it.

    The first line is the address of the search page. The catalogue flows in while you look at it.

    With --once the exit code is 0 only if nothing was lost and the sample queries found what they
    asked for (precision@8 of at least 0.9 over the text queries).
    """
    quieten_logs()
    options, console = DemoOptions(**flags), Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    has_viewer = browser and not once and sys.stdout.isatty() and has_desktop()
    try:
        with interrupts_kept(), running_demo(options, console) as demo:
            if has_viewer:
                open_browser(demo.page.url)
            report = _run_once(demo) if once else _run_until_interrupted(demo)
    except FAILURES as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        console.print("stopped")
        raise SystemExit(INTERRUPTED) from None
    if once and report is not None:
        click.echo(report.as_json())
    raise SystemExit(0 if report is not None and report.is_good else 1)


def _tell(console: Console, report: DemoReport) -> None:
    """Print the report. A terminal breaks its lines between words; in a log each stays whole."""
    console.print(report.in_words(), highlight=False, soft_wrap=not console.is_terminal)


def _run_once(demo: DemoRun) -> DemoReport:
    report, gallery = demo.measure()
    _tell(demo.console, report)
    if demo.options.directory is not None:
        demo.console.print(f"gallery of the answers: {gallery.as_uri()}", soft_wrap=True)
    return report


def _run_until_interrupted(demo: DemoRun) -> DemoReport | None:
    """Return None if the uploads did not become searchable, so that there are no figures."""
    try:
        report, gallery = demo.measure()
    except (ConsumerStopped, NotSearchableInTime) as error:
        _stay(demo, partial(demo.stay_without_figures, error))
        return None
    _tell(demo.console, report)
    _stay(demo, partial(demo.stay, gallery))
    return report


def _stay(demo: DemoRun, stay: Callable[[], None]) -> None:
    try:
        stay()
    except KeyboardInterrupt:
        demo.console.print("stopping")


if __name__ == "__main__":
    main()
