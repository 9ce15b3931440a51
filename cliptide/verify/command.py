"""`cliptide verify`: check that the index equals its log."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table

from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot, local_directory
from cliptide.terminal.engine import engine_options
from cliptide.terminal.options import dead_letter_topic_option, index_options, kafka_options, mapping_option
from cliptide.terminal.plain_text import plain
from cliptide.terminal.registry import RegistryOptions, open_schemas, registry_options
from cliptide.verify.log_reading import LogTopics, fold_log
from cliptide.verify.verification import ShardDifference, covered_ranges
from event_log.kafka.settings import KafkaSettings
from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.errors import EngineUnavailable
from opensearch_engine.reader import OpenSearchReader
from schemas.codec import EventDecoder
from schemas.mapping.rules import EventMapping

_NUM_SHOWN = 5
_KINDS = ("missing", "surplus", "outdated")


@click.command("verify", short_help="Read the log again and compare the index with it.")
@index_options
@dead_letter_topic_option
@engine_options
@mapping_option
@kafka_options
@registry_options
def verify_command(
    index_root: IndexRoot,
    index_id: str | None,
    dead_letter_topic: str,
    opensearch: OpenSearchSettings | None,
    mapping: EventMapping | None,
    kafka: KafkaSettings,
    registry: RegistryOptions,
) -> None:
    """Read the log again, fold it, and compare the index with the result, content by content.

    Every file of an index in a directory is also checked against its digest. The exit code is 0 only if no
    difference was found. If retention has removed records that the index covers, the contents that only
    they could prove are counted as unproven. The last line of standard output is a JSON summary.
    """
    reader = _open_reader(index_root, index_id, opensearch)
    try:
        reader.reload()
    except EngineUnavailable as error:
        raise click.ClickException(str(error)) from error
    if reader.index is None or reader.searcher is None:
        raise click.ClickException(f"no index in {index_root}")
    with open_schemas(registry, local_directory(index_root)) as schemas:
        folded = fold_log(
            kafka,
            LogTopics(reader.index.description.topic, dead_letter_topic),
            covered_ranges(reader.searcher, reader.index.partition_of),
            EventDecoder(mapping=mapping, registry=schemas),
        )
    differences = folded.compare(reader.searcher, reader.index.partition_of)
    is_equal = all(difference.is_equal for difference in differences)
    print_table(Console(), differences)
    if folded.num_beyond:
        click.echo(
            f"{folded.num_beyond} records of the log are beyond this index: a consumer has to read them"
        )
    summary = {
        "equal": is_equal,
        "records": folded.num_records,
        "contents": sum(difference.num_equal for difference in differences),
        "unproven": sum(difference.num_unproven for difference in differences),
        "beyond": folded.num_beyond,
        "differences": {d.shard: _counts(d) for d in differences if not d.is_equal},
    }
    click.echo(json.dumps(summary))
    sys.exit(0 if is_equal else 1)


def _open_reader(
    index_root: IndexRoot, index_id: str | None, opensearch: OpenSearchSettings | None
) -> IndexReader | OpenSearchReader:
    if opensearch is None:
        return IndexReader(index_root, index_id)
    return OpenSearchReader(Connection(opensearch), index_id)


def _counts(difference: ShardDifference) -> dict[str, int]:
    return {kind: len(getattr(difference, kind)) for kind in _KINDS}


def print_table(console: Console, differences: Sequence[ShardDifference]) -> None:
    """Print how many contents of each shard differ, and below the table which ones."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("shard", overflow="fold")
    for column in ("equal", "unproven", *_KINDS):
        table.add_column(column, justify="right", no_wrap=True)
    for difference in differences:
        numbers = (difference.num_equal, difference.num_unproven, *_counts(difference).values())
        table.add_row(plain(difference.shard), *(f"{number:,}" for number in numbers))
    console.print(table)
    for difference in differences:
        for kind in _KINDS:
            if content_ids := getattr(difference, kind):
                console.print(plain(f"{difference.shard}, {kind}: {_shown(content_ids)}"))


def _shown(content_ids: Sequence[str]) -> str:
    more = f" … ({len(content_ids):,} in all)" if len(content_ids) > _NUM_SHOWN else ""
    return ", ".join(content_ids[:_NUM_SHOWN]) + more
