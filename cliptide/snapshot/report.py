"""The output of `cliptide snapshot`, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from clip_index.generations.inspection import InspectedGeneration
from clip_index.generations.manifest import Manifest
from clip_index.generations.restoration import Restoration
from cliptide.snapshot.backup import CopiedShard
from consumer.intake.start_check import ACCEPT_REWIND


def generation_fields(found: InspectedGeneration) -> dict[str, Any]:
    """Describe one generation. Fields of its manifest are None if the manifest cannot be read."""
    manifest = found.manifest
    return {
        "generation": found.generation,
        "writer_epoch": manifest.writer_epoch if manifest else None,
        "first_offset": manifest.first_offset if manifest else None,
        "next_offset": manifest.next_offset if manifest else None,
        "segments": len(manifest.segments) if manifest else None,
        "contents": manifest.num_live() if manifest else None,
        "damage": str(found.damage) if found.damage else None,
    }


def print_generations(console: Console, shard: str, generations: Sequence[InspectedGeneration]) -> None:
    if not generations:
        console.print(f"{shard}: no generation yet")
        return
    table = Table(box=box.SIMPLE_HEAD, title=shard, title_justify="left")
    for column in ("generation", "epoch", "next offset", "segments", "contents"):
        table.add_column(column, justify="right")
    table.add_column("files")
    for found in generations:
        fields = generation_fields(found)
        numbers = (fields[name] for name in ("writer_epoch", "next_offset", "segments", "contents"))
        cells = (str(found.generation), *("—" if number is None else f"{number:,}" for number in numbers))
        table.add_row(*cells, "damaged" if found.damage else "good")
    console.print(table)
    for found in generations:
        if found.damage:
            click.echo(f"generation {found.generation}: {found.damage}")


def restoration_fields(shard: str, plan: Restoration | None, committed: Manifest | None) -> dict[str, Any]:
    """Describe a repair or a rollback. `committed` is None if nothing was done."""
    if plan is None:
        return {"shard": shard, "committed": None, "damaged": False}
    return {
        "shard": shard,
        "committed": committed.generation if committed else None,
        "from_generation": plan.source.generation,
        "next_offset": plan.source.next_offset,
        "next_offset_before": plan.next_offset_before,
        "left_behind": [
            {"generation": found.generation, "damage": str(found.damage) if found.damage else None}
            for found in plan.left_behind
        ],
        "left_segments": plan.left_segments,
        "damaged": any(found.damage for found in plan.left_behind),
    }


def print_restoration(shard: str, plan: Restoration | None, committed: Manifest | None) -> None:
    if plan is None:
        click.echo(f"{shard}: the newest generation is good, nothing to do")
        return
    source = plan.source
    generation = f"generation {plan.newest + 1} {'shows' if committed else 'would show'}"
    num_contents = f"{source.num_live():,} contents in {len(source.segments)} segments"
    click.echo(
        f"{shard}: {generation} {num_contents}, "
        f"from generation {source.generation}; next offset {source.next_offset}, "
        f"before {'unknown' if plan.next_offset_before is None else plan.next_offset_before}"
    )
    for found in plan.left_behind:
        click.echo(f"  left behind: generation {found.generation}{_reason(found)}")
    if plan.left_segments:
        click.echo(f"  left behind: segments {', '.join(plan.left_segments)}")
    click.echo(
        f"  the consumer reads the log again from {source.next_offset}; if its group has committed more, "
        f"start it once with --accept-rewind ({ACCEPT_REWIND}=true)"
    )


def print_copy(copied: CopiedShard) -> None:
    click.echo(
        f"{copied.shard}: generation {copied.generation} with {copied.num_contents:,} contents, next offset "
        f"{copied.next_offset}; {copied.num_bytes:,} bytes copied"
    )


def print_way_on(moved_to: Path | None) -> None:
    """Say what to do after a restored backup; `moved_to` is the index that it replaced."""
    if moved_to is not None:
        click.echo(f"the former index is now {moved_to}; remove it when all is well")
    click.echo(
        f"start one consumer once with --accept-rewind ({ACCEPT_REWIND}=true): it reads the log again from "
        "the backup's offsets"
    )


def _reason(found: InspectedGeneration) -> str:
    return f": {found.damage}" if found.damage else ""
