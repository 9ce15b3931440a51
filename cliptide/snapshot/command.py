"""`cliptide snapshot`: list the generations of each shard, go back to one of them, back up and restore."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clip_index.generations.history import GenerationTaken
from clip_index.generations.inspection import Inspection
from clip_index.generations.manifest import Manifest
from clip_index.generations.restoration import (
    Restoration,
    commit_restoration,
    plan_refill,
    plan_repair,
    plan_rollback,
)
from clip_index.indexes.index_directory import IndexDirectory, repair_current
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.shard_store import ShardStore
from cliptide.snapshot.backup import CopiedShard, back_up, open_backup
from cliptide.snapshot.report import (
    generation_fields,
    print_copy,
    print_generations,
    print_restoration,
    print_way_on,
    restoration_fields,
)
from cliptide.snapshot.restore import existing_index, moved_aside, restore, restore_in_bucket
from cliptide.snapshot.shard_life import alive_within_seconds, shows_life
from cliptide.terminal.options import (
    ROOT_TEXT,
    index_id_option,
    index_options,
    index_root_option,
    option,
    root_argument,
)
from cliptide.terminal.paths import in_words

_MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class RestorationOptions:
    """The flags of a repair or a rollback."""

    is_dry_run: bool
    accepts_running: bool
    as_json: bool


@click.group("snapshot", short_help="List generations, repair, go back, back up.")
def snapshot_command() -> None:
    """List the generations of each shard, repair damage, go back to a former generation, or back up.

    Going back commits a new generation and removes nothing. The consumer then reads the log again from
    that generation's offset.
    """


def _partition_option(*, is_required: bool) -> Callable[[Any], Any]:
    text = "The shard's partition." if is_required else "The shard's partition. Default: every shard."
    return option("--partition", type=click.IntRange(0), required=is_required, help=text)


def _json_option(command_name: str) -> Callable[[Any], Any]:
    variable = f"CLIPTIDE_SNAPSHOT_{command_name.upper()}_JSON"
    text = "Print one JSON object per line instead of text."
    return option("--json", "as_json", envvar=variable, is_flag=True, help=text)


def _restoration_options(command_name: str) -> Callable[[Any], Any]:
    running = "Proceed even if a consumer seems to be running. It will be fenced, and stop."

    def add_all(command: Any) -> Any:
        command = option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")(command)
        command = option("--while-running", is_flag=True, help=running)(command)
        return _json_option(command_name)(command)

    return add_all


@snapshot_command.command("list", short_help="Show what each generation holds.")
@index_options
@_partition_option(is_required=False)
@option("--last", type=click.IntRange(1), default=10, help="Show the newest N generations of each shard.")
@_json_option("list")
def list_command(
    index_root: IndexRoot, index_id: str | None, partition: int | None, last: int, as_json: bool
) -> None:
    """Show what each generation holds, and whether any of its files is damaged.

    The exit code is 1 if the newest generation of a shard is damaged.
    """
    is_damaged = False
    with _disk_errors_named():
        for store in _shard_stores(index_root, index_id, partition):
            found = list(islice(Inspection(store).newest_first(), last))
            is_damaged |= bool(found and found[0].damage)
            if as_json:
                for one in found:
                    click.echo(json.dumps({"shard": store.name, **generation_fields(one)}))
            else:
                print_generations(Console(), store.name, found)
    raise SystemExit(1 if is_damaged else 0)


@snapshot_command.command("repair", short_help="Commit a sound generation over a damaged one.")
@index_options
@_partition_option(is_required=False)
@option("--from-log", is_flag=True, help="Empty the shard, to index its whole log again. Needs --partition.")
@_restoration_options("repair")
def repair_command(
    index_root: IndexRoot, index_id: str | None, partition: int | None, from_log: bool, **flags: bool
) -> None:
    """If the newest generation is damaged, commit a new one from the newest undamaged one.

    If the file that names the serving index (current-N.json) is damaged, it is written anew first.

    A generation is undamaged if its manifest and all of its files match their digests. If every
    generation is damaged, use --from-log: the consumer then indexes the shard's whole log again.
    """
    if from_log and partition is None:
        raise click.UsageError("--from-log empties a shard: name its --partition")
    plan = plan_refill if from_log else plan_repair
    with _disk_errors_named():
        if not flags["dry_run"] and (named := repair_current(index_root, index_id)) is not None:
            click.echo(f"the index {named} is named as the one that serves", err=True)
        for store in _shard_stores(index_root, index_id, partition):
            _restore(store, plan, _options_from(**flags))


@snapshot_command.command("rollback", short_help="Commit a former generation again.")
@index_options
@_partition_option(is_required=True)
@option("--generation", type=click.IntRange(1), required=True, help="The generation to go back to.")
@_restoration_options("rollback")
def rollback_command(
    index_root: IndexRoot, index_id: str | None, partition: int, generation: int, **flags: bool
) -> None:
    """Commit a new generation with the segments and the next offset of a former one."""
    [store] = _shard_stores(index_root, index_id, partition)
    with _disk_errors_named():
        _restore(store, lambda inspection: plan_rollback(inspection, generation), _options_from(**flags))


@snapshot_command.command("backup", short_help="Copy the index while it is used.")
@root_argument("place", exists=False)
@index_root_option(exists=True, text=ROOT_TEXT, arguments=("place",))
@index_id_option
@_json_option("backup")
def backup_command(place: IndexRoot, index_root: IndexRoot, index_id: str | None, as_json: bool) -> None:
    """Copy the newest generation of each shard to PLACE, while consumers and query services run.

    PLACE is a directory or a bucket (s3://bucket/prefix). It is empty, or holds a former backup of the same
    index: then only what is new is copied. Every file is verified. Choose another disk, or another bucket.
    """
    with _disk_errors_named():
        for copied in back_up(IndexDirectory.open(index_root, index_id), index_root, place):
            _report_copy(copied, as_json=as_json)


@snapshot_command.command("restore", short_help="Put a backup in place of an index.")
@root_argument("place", exists=True)
@index_root_option(
    exists=False,
    text="What holds the indexes: a directory or a bucket. It may be missing.",
    arguments=("place",),
)
@option("--replace", is_flag=True, help="Move an index of the same id aside. Default: refuse.")
@option("--while-running", is_flag=True, help="Proceed even if a consumer seems to be running.")
@_json_option("restore")
def restore_command(
    place: IndexRoot, index_root: IndexRoot, replace: bool, while_running: bool, as_json: bool
) -> None:
    """Put the backup in PLACE, a directory or a bucket, into the index root. Stop the consumers first.

    In a directory every file is verified before anything is moved, and a replaced index is kept beside the
    others, as replaced-ID-N. In a bucket nothing can be moved: there must be no index of this id, and the
    restored one appears when all of it is there. The consumer then reads the log again from the backup's
    offsets.
    """
    aside = None
    with _disk_errors_named():
        backup = open_backup(place)
        if isinstance(index_root, Path):
            existing = _replaceable(index_root, backup.index_id, replace, while_running)
            aside = None if existing is None else moved_aside(index_root, backup.index_id)
            copies = restore(backup, index_root, existing)
        elif replace:
            raise click.UsageError("--replace moves an index aside, and in a bucket nothing can be moved")
        else:
            copies = restore_in_bucket(backup, index_root)
        for copied in copies:
            _report_copy(copied, as_json=as_json)
    if not as_json:
        print_way_on(aside)


def _replaceable(root: Path, index_id: str, replace: bool, while_running: bool) -> IndexDirectory | None:
    """Return the index that is to be moved aside, if there is one; refuse where that was not asked for."""
    existing = existing_index(root, index_id)
    if existing is not None and not replace:
        raise click.ClickException(f"{root} has an index {index_id} already: use --replace to move it aside")
    if existing is not None and not while_running:
        for number in existing.partitions:
            _refuse_running(existing.shard_store(number))
    return existing


def _report_copy(copied: CopiedShard, *, as_json: bool) -> None:
    click.echo(json.dumps(asdict(copied))) if as_json else print_copy(copied)


def _options_from(*, dry_run: bool, while_running: bool, as_json: bool) -> RestorationOptions:
    return RestorationOptions(is_dry_run=dry_run, accepts_running=while_running, as_json=as_json)


def _restore(
    store: ShardStore, make_plan: Callable[[Inspection], Restoration | None], options: RestorationOptions
) -> None:
    """Plan, commit unless this is a dry run, and report. If a writer commits in between, plan again."""
    inspection, writer_id = Inspection(store), f"snapshot-{os.getpid()}-{secrets.token_hex(4)}"
    for _ in range(_MAX_TRIES):
        plan = make_plan(inspection)
        if plan is None or options.is_dry_run:
            return _report(store.name, plan, None, options)
        if not options.accepts_running:
            _refuse_running(store)
        try:
            committed = commit_restoration(store, plan, writer_id=writer_id)
        except GenerationTaken:
            continue
        return _report(store.name, plan, committed, options)
    raise click.ClickException(f"{store.name}: a running consumer keeps committing: stop it first")


def _refuse_running(store: ShardStore) -> None:
    if shows_life(store):
        raise click.ClickException(
            f"{store.name}: a consumer has shown life within the last {alive_within_seconds(store):.0f} "
            "seconds: stop it and wait that long, or use --while-running to fence it"
        )


def _report(
    shard: str, plan: Restoration | None, committed: Manifest | None, options: RestorationOptions
) -> None:
    if options.as_json:
        click.echo(json.dumps(restoration_fields(shard, plan, committed)))
    else:
        print_restoration(shard, plan, committed)


def _shard_stores(index_root: IndexRoot, index_id: str | None, partition: int | None) -> Sequence[ShardStore]:
    index = IndexDirectory.open(index_root, index_id)
    partitions = range(index.description.num_partitions)
    if partition is None:
        return [index.shard_store(number) for number in partitions]
    if partition not in partitions:
        raise click.BadParameter(f"the index has {len(partitions)} partitions", param_hint="--partition")
    return [index.shard_store(partition)]


@contextmanager
def _disk_errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # the disk failed or refused, which is no fault of this program
        raise click.ClickException(in_words(error)) from error
