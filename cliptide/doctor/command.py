"""`cliptide doctor`: try everything that the services need."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain

import click
from rich.console import Console
from rich.table import Table

from cliptide.doctor.disk_checks import check_disk, check_index
from cliptide.doctor.encoder_checks import check_devices, check_encoder
from cliptide.doctor.findings import Finding, skipped
from cliptide.doctor.kafka_checks import check_kafka
from cliptide.doctor.opensearch_checks import check_opensearch
from cliptide.doctor.query_checks import check_query_service
from cliptide.doctor.registry_checks import check_registry
from cliptide.doctor.settings_checks import check_settings, read_consumer_settings, read_query_settings
from cliptide.doctor.store_checks import check_contents_store
from cliptide.doctor.trace_checks import check_traces
from cliptide.terminal.options import option, query_options
from cliptide.terminal.plain_text import plain
from cliptide.terminal.summary import counted, print_summary

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
_STATUS_WIDTH, _CHECK_WIDTH = 7, 13


@click.command("doctor")
@option("--without-model", is_flag=True, help="Do not load the model, which takes seconds.")
@option(
    "--json",
    "as_json",
    envvar="CLIPTIDE_DOCTOR_JSON",
    is_flag=True,
    help="Print one JSON object per line instead of text: each finding, then the summary.",
)
@query_options
def doctor_command(without_model: bool, as_json: bool, query_url: str, api_key: str | None) -> None:
    """Try everything that the services need, and say what is wrong and what to set.

    The settings of both services are read from the environment, as the services read them. Then Kafka is
    asked (with its authentication), both topics and their settings, the partitions of the newest records,
    the schema registry if there is one, the disk (or OpenSearch) and the index on it, the model, the store of
    uploaded contents and the collector of traces if there are any, and the query service. Nothing is
    changed: on the disk, a small file is written and removed. In the store of contents, a text of 16 bytes
    stays.

    The exit code is 1 if something has failed. A warning is no failure.
    """
    counts: Counter[str] = Counter()
    console = Console(highlight=False)
    for finding in _findings(query_url, api_key, with_model=not without_model):
        counts[finding.status] += 1
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            print_finding(console, finding)
    summary = {"good": not counts["failed"], **{status: counts[status] for status in _STYLES}}
    print_summary(summary, _in_words(counts), as_json=as_json)
    raise SystemExit(1 if counts["failed"] else 0)


def _findings(query_url: str, api_key: str | None, *, with_model: bool) -> Iterator[Finding]:
    """Yield each finding as soon as it is there."""
    settings, of_query_service = read_consumer_settings(), read_query_settings()
    yield from check_settings(settings, of_query_service)
    if isinstance(settings, Finding):
        for check in ("kafka", "disk", "index", "model"):
            yield skipped(check, "the consumer's settings cannot be used")
    else:
        yield from chain(check_kafka(settings), check_registry(settings))
        if settings.index.engine == "opensearch":
            yield from check_opensearch(settings)
        else:
            yield from chain(check_disk(settings), check_index(settings))
        if with_model:
            yield from chain(check_encoder(settings), check_devices(settings.encoder))
    if not isinstance(of_query_service, Finding):
        if not isinstance(settings, Finding):
            yield from check_contents_store(of_query_service, settings)
        yield from check_traces(of_query_service.query_api.otlp_endpoint)
    yield from check_query_service(query_url, api_key)


def print_finding(console: Console, finding: Finding) -> None:
    """Print one finding, in columns that do not depend on the next one."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_STATUS_WIDTH, style=_STYLES[finding.status])
    table.add_column(width=_CHECK_WIDTH)
    table.add_column(overflow="fold")
    table.add_row(finding.status, finding.check, plain(finding.message))
    if finding.remedy is not None:
        table.add_row("", "", plain(f"→ {finding.remedy}"))
    console.print(table)


def _in_words(counts: Counter[str]) -> str:
    failures = f"{counted(counts['failed'], 'check')} failed" if counts["failed"] else "nothing failed"
    warnings = [counted(counts["warning"], "warning")] if counts["warning"] else []
    skips = [f"{counts['skipped']:,} not tried"] if counts["skipped"] else []
    return ", ".join([failures, *warnings, *skips])
