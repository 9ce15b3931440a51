"""`cliptide switch` and `cliptide rollback`: which index the query services serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from clip_index.errors import ClipIndexError
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import (
    Pointer,
    find_former,
    name_current,
    name_former,
    read_history,
    read_pointer,
)
from clip_index.storage.index_roots import IndexRoot, open_root
from cliptide.pairs.reading import PairRequest
from cliptide.reindexing.comparing import ComparisonRequest, model_option
from cliptide.reindexing.disk_errors import disk_errors_named
from cliptide.reindexing.live_queries import LiveQueries, live_options
from cliptide.reindexing.shard_gaps import described, read_gaps, read_next_offsets, refuse_other_log
from cliptide.reindexing.switch_checks import (
    CatchUp,
    ServiceWatch,
    refuse_damaged,
    refuse_low_quality,
    refuse_where_it_cannot_be_served,
)
from cliptide.searching.query_client import QueryClient
from cliptide.terminal.numbers import FiniteRange
from cliptide.terminal.options import checked_index_id, http_address, option, root_option
from cliptide.terminal.paths import PathType
from cliptide.terminal.summary import json_option, print_summary
from cliptide.terminal.waiting import tell


def service_options(command: Any) -> Any:
    """Add --service, --api-key and --timeout: the services that a switch asks and waits for."""
    command = option(
        "--timeout",
        "timeout_seconds",
        type=FiniteRange(0),
        default=300.0,
        help="How many seconds to wait until each --service serves the index.",
    )(command)
    command = option(
        "--api-key",
        default=None,
        envvar="CLIPTIDE_API_KEY",
        help="The API key that is sent to each --service, as a bearer token.",
    )(command)
    return option(
        "--service",
        "service_urls",
        multiple=True,
        callback=lambda ctx, param, values: [http_address(ctx, param, one) for one in values],
        help="The address of a query service: it is asked beforehand, and waited for. Repeatable.",
    )(command)


def quality_options(command: Any) -> Any:
    """Add --min-overlap and --min-recall, and what they are measured on."""
    command = live_options(model_option(command))
    command = option(
        "--pairs",
        type=PathType(exists=True, path_type=Path),
        help="Pairs, as `cliptide evaluate` takes them, for --min-recall and --min-overlap.",
    )(command)
    command = option(
        "--queries",
        "queries_file",
        type=PathType(dir_okay=False, path_type=Path),
        help="A file of texts for --min-overlap, one a line. Default: the queries of --live, or else "
        "contents that are sampled.",
    )(command)
    command = option(
        "--min-recall",
        type=FiniteRange(0, 1),
        help="Refuse if recall@10 from text to image is lower in the new index. Needs --pairs.",
    )(command)
    return option(
        "--min-overlap",
        type=FiniteRange(0, 1),
        help="Refuse if a smaller share of the first ten hits is the same in both indexes.",
    )(command)


@click.command("switch", short_help="Let another index serve.")
@click.argument("index_id", required=False, callback=checked_index_id)
@root_option
@option("--list", "is_list", is_flag=True, help="Show which indexes have served, and change nothing.")
@option(
    "--wait-seconds",
    type=FiniteRange(0),
    default=30.0,
    help="How long to wait until the index holds what the served one holds now.",
)
@quality_options
@service_options
@json_option("switch")
def switch_command(
    index_id: str | None, index_root: IndexRoot, is_list: bool, as_json: bool, **flags: Any
) -> None:
    """Let the index INDEX_ID serve: every query service follows without a pause.

    The switch is refused if the index is of another topic, if a file of it is damaged, or if it has not
    caught up with the index that serves, offset by offset. It is also refused if a --service says that it
    cannot serve the index, for example because both encoders do not fit into its memory. With --min-overlap
    or --min-recall, both indexes are asked, and the switch is refused below these figures.

    `cliptide rollback` moves back. The exit code is 1 if the switch was refused, or if a --service does not
    serve the index after --timeout.
    """
    with disk_errors_named():
        if is_list:
            _print_history(read_history(open_root(index_root)), as_json=as_json)
        elif flags["min_recall"] is not None and flags["pairs"] is None:
            raise click.UsageError("--min-recall is measured on --pairs")
        elif index_id is None:
            raise click.UsageError("name the index that is to serve, or use --list")
        else:
            _switch(index_id, index_root, flags, as_json=as_json)


def _switch(index_id: str, root: IndexRoot, flags: dict[str, Any], *, as_json: bool) -> None:
    """Check, then name the index. If somebody has named another one meanwhile, the checks do not count."""
    pointer, services = read_pointer(open_root(root)), clients_of(flags)
    if pointer.index_id == index_id:
        _follow(pointer, None, services, flags, as_json=as_json)
        return
    _check(IndexDirectory.open(root, index_id), pointer, root, services, flags)
    named = name_current(open_root(root), index_id, after=pointer.number)
    _follow(named, pointer.index_id, services, flags, as_json=as_json)


def _check(
    index: IndexDirectory,
    pointer: Pointer,
    root: IndexRoot,
    services: Sequence[QueryClient],
    flags: dict[str, Any],
) -> None:
    """Step by step from the cheapest check to the one that waits, so that a refusal comes early."""
    served = IndexDirectory.open(root, pointer.index_id)
    refuse_other_log(index, served)
    refuse_where_it_cannot_be_served(index.index_id, services)
    tell(f"verifying the files of {index.index_id} …")
    refuse_damaged(index)
    CatchUp(flags["wait_seconds"]).wait(index, served)
    if flags["min_overlap"] is not None or flags["min_recall"] is not None:
        refuse_low_quality(_comparison(index, served, root, flags), flags["min_overlap"], flags["min_recall"])


def _comparison(
    index: IndexDirectory, served: IndexDirectory, root: IndexRoot, flags: dict[str, Any]
) -> ComparisonRequest:
    pairs = None if flags["pairs"] is None else PairRequest.of_sources([flags["pairs"]])
    return ComparisonRequest(
        root,
        served.index_id,
        index.index_id,
        model_of=flags["model_of"],
        queries_file=flags["queries_file"],
        pairs=pairs,
        live=LiveQueries(flags["live_urls"], flags["admin_key"]),
    )


@click.command("rollback", short_help="Let the former index serve again.")
@root_option
@service_options
@json_option("rollback")
def rollback_command(index_root: IndexRoot, as_json: bool, **flags: Any) -> None:
    """Let the index serve again that served before the last `cliptide switch`.

    It is not refused if that index is behind, because a rollback may be urgent: the command says how many
    records it lacks. Start its consumer again to catch up. A second rollback undoes the switch before.
    """
    with disk_errors_named():
        top = open_root(index_root)
        current, former = read_pointer(top), find_former(top)
        index = IndexDirectory.open(index_root, former.index_id)
        _tell_what_is_missing(index, current.index_id, index_root)
        named = name_former(top)
    _follow(named, current.index_id, clients_of(flags), flags, as_json=as_json)


def _tell_what_is_missing(index: IndexDirectory, served_id: str, root: IndexRoot) -> None:
    try:
        wanted = read_next_offsets(IndexDirectory.open(root, served_id))
        gaps = read_gaps(index, wanted)
    except (ClipIndexError, OSError, IndexError):  # the index that is left may be what is broken
        return
    if behind := sum(gap.num_behind for gap in gaps):
        tell(f"{index.index_id} is {behind:,} records behind {served_id} ({described(gaps)})")


def _follow(
    named: Pointer,
    former_id: str | None,
    services: Sequence[QueryClient],
    flags: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Wait for the services, and tell what has happened. Without a former index nothing was changed here."""
    troubles = ServiceWatch(flags["timeout_seconds"]).wait(named.index_id, services)
    for trouble in troubles:
        tell(trouble)
    fields = {
        "index": named.index_id,
        "former": former_id,
        "changed": former_id is not None,
        "pointer": named.number,
        "services": len(services),
        "not_following": len(troubles),
    }
    sentence = f"{named.index_id} serves" + (f" (it was {former_id})" if former_id else " already")
    if troubles:
        sentence += (
            f"; {len(troubles)} of {len(services)} services do not follow: `cliptide rollback` moves back"
        )
    print_summary(fields, sentence, as_json=as_json)
    if troubles:
        raise SystemExit(1)


def _print_history(history: Sequence[Pointer], *, as_json: bool) -> None:
    if as_json:
        for one in history:
            click.echo(json.dumps({"pointer": one.number, "index": one.index_id, "since": _time_of(one)}))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("pointer", "index", "since"):
        table.add_column(column)
    for one in history:
        table.add_row(str(one.number), one.index_id, _time_of(one) or "")
    Console().print(table)


def _time_of(pointer: Pointer) -> str | None:
    if pointer.named_at_ms is None:
        return None
    return datetime.fromtimestamp(pointer.named_at_ms / 1000, timezone.utc).isoformat(timespec="seconds")


def clients_of(flags: dict[str, Any]) -> list[QueryClient]:
    return [QueryClient(url, flags["api_key"]) for url in flags["service_urls"]]
