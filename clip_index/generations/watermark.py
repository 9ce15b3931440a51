"""A time up to which every record of a shard is covered, renewed while the shard is idle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clip_index.errors import DamagedFile
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.durable_files import replace_file

FILE_NAME = "watermark.json"


@dataclass(frozen=True, slots=True)
class Watermark:
    """Holds for every generation of this epoch that covers `next_offset`."""

    watermark_ms: int
    next_offset: int
    writer_epoch: int


def write_watermark(shard_path: Path, watermark: Watermark) -> None:
    fields = {name: getattr(watermark, name) for name in Watermark.__slots__}
    replace_file(shard_path / FILE_NAME, dump_digested(fields))


def read_watermark(shard_path: Path) -> Watermark | None:
    """Read the watermark; None if there is none, or one that cannot be read or understood."""
    path = shard_path / FILE_NAME
    try:
        fields = parse_digested(path.read_bytes(), path)
        return Watermark(**{name: int(fields[name]) for name in Watermark.__slots__})
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        return None  # it is renewed within seconds, and nothing rests on it but a display
