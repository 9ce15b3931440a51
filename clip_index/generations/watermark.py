"""A time up to which every record of a shard is covered, renewed while the shard is idle."""

from __future__ import annotations

from dataclasses import dataclass

from clip_index.errors import DamagedFile
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.shard_store import ShardStore

FILE_NAME = "watermark.json"


@dataclass(frozen=True, slots=True)
class Watermark:
    """Every record at or before `watermark_ms` (ms since 1970) has an offset below `next_offset`.

    So it holds for every generation of this writer epoch, and of later ones, that covers `next_offset`.
    """

    watermark_ms: int
    next_offset: int
    writer_epoch: int


def write_watermark(store: ShardStore, watermark: Watermark) -> None:
    fields = {name: getattr(watermark, name) for name in Watermark.__slots__}
    store.replace(FILE_NAME, dump_digested(fields))


def read_watermark(store: ShardStore) -> Watermark | None:
    """Read the watermark; None if there is none, or one that cannot be read or understood."""
    try:
        fields = parse_digested(store.read(FILE_NAME), store.address_of(FILE_NAME))
        numbers = {name: int(fields[name]) for name in Watermark.__slots__}
        return Watermark(**numbers) if all(0 <= n < 2**63 for n in numbers.values()) else None
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        return None  # the writer renews it within seconds, and it is only displayed
