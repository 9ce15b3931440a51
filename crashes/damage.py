"""Flips a bit of an index file or truncates it, and tells who opens the damaged file without an error."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_index.content import Change
from clip_index.errors import DamagedFile
from clip_index.generations.history import manifest_name, read_newest
from clip_index.generations.watermark import read_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot
from clip_index.vectors.lists.inverted_lists import MIN_NODES
from clip_index.writing.deferred_segment import DeferredSegment
from clip_index.writing.shard_state import open_for_look_ups
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.format_1 import rewrite_as_format_1
from fakes.shards import add, content, create_index, removal, take_over

_SETTINGS = WriterSettings(max_bitmap_bytes=0)


@dataclass(frozen=True)
class Damage:
    """`kind` is the file's name without generation numbers and ids; `misses` names who did not notice."""

    kind: str
    change: str
    misses: Sequence[str]


def build_index(root: Path) -> None:
    """Build an index with every kind of file: flat and inverted lists, tombstones, remembered deletes.

    Its first segments are of format 1, the last ones packs. One pack is so large that a takeover verifies it
    in two steps.
    """
    index = create_index(root)
    writer = take_over(index, settings=_SETTINGS)
    _fill(writer, "former")
    rewrite_as_format_1(index.shard_path(0))
    _fill_with_packs(index)


def build_packs(root: IndexRoot) -> None:
    """Build such an index of packs alone: no release has written format 1 into a bucket."""
    _fill_with_packs(create_index(root))


def _fill_with_packs(index: IndexDirectory) -> None:
    writer = take_over(index, settings=_SETTINGS)
    _fill(writer, "latter")
    writer.renew_watermark(1_700_000_000_000)
    writer.close()


def _fill(writer: ShardWriter, who: str) -> None:
    text: dict[str, Any] = {"modality": "text", "num_rows": 3, "text": "t", "owner_id": "ann"}
    _commit(writer, [content(f"{who}-{i}", i, seed=i) for i in range(MIN_NODES)])
    texts = [content(f"{who}-text-{i}", **text) for i in range(5)]
    _commit(
        writer,
        [
            *texts,
            *(content(f"{who}-picture-{i}", thumbnail=b"webp", digest=bytes([i] * 32)) for i in range(5)),
        ],
    )
    _commit(writer, [content(f"{who}-large", thumbnail=bytes(range(256)) * 4096)])
    _commit(writer, [removal(f"{who}-text-0"), *(removal(f"{who}-{i}", version=1) for i in range(40))])
    writer.close()


def _commit(writer: ShardWriter, changes: Sequence[Change]) -> None:
    add(writer, changes)
    writer.commit()


def damaged_files(root: Path, *, seed: int, number: int) -> Iterator[Damage]:
    """Damage one file after another, each kind in turn, and restore it before the next."""
    dice = random.Random(seed)
    files = _files(root)
    kinds = sorted(files)
    for i in range(number):
        kind = kinds[i % len(kinds)]
        path = dice.choice(files[kind])
        whole = path.read_bytes()
        path.chmod(0o644)
        damage = dice.choice(CHANGES)
        path.write_bytes(damage(whole, dice))
        yield Damage(kind, damage.__name__, misses_of(root, kind))
        path.write_bytes(whole)


def flip_a_bit(data: bytes, dice: random.Random) -> bytes:
    position = dice.randrange(len(data))
    return data[:position] + bytes([data[position] ^ (1 << dice.randrange(8))]) + data[position + 1 :]


def cut_short(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


CHANGES = (flip_a_bit, cut_short)


def _files(root: Path) -> dict[str, list[Path]]:
    """Return every file that a reader opens, by kind."""
    index = IndexDirectory.open(root)
    shard, store = index.shard_path(0), index.shard_store(0)
    newest = read_newest(store)
    assert newest is not None
    named = [store.local_file(name) for name, _ in newest.files()]
    files: dict[str, list[Path]] = {
        "current": [root / "current-1.json"],
        "index.json": [index.path / "index.json"],
        "manifest": [shard / manifest_name(newest.generation)],
        "watermark.json": [shard / "watermark.json"],
    }
    for path in named:
        kind = "tombstones" if path.parent.name == "tombstones" else path.name
        kind = "pack" if path.suffix == ".pack" else kind
        files.setdefault(kind, []).append(path)
    return files


def misses_of(root: IndexRoot, kind: str) -> list[str]:
    """Return who opens an index of which a file of this kind is damaged."""
    if kind == "watermark.json":
        store = IndexDirectory.open(root).shard_store(0)
        return [] if read_watermark(store) is None else ["watermark"]
    openers: dict[str, Callable[[IndexRoot], None]] = {"reader": _read, "writer": verify_as_writer}
    return [name for name, opens in openers.items() if not _is_refused(opens, root)]


def _is_refused(opens: Callable[[IndexRoot], None], root: IndexRoot) -> bool:
    try:
        opens(root)
    except DamagedFile:
        return True
    return False


def _read(root: IndexRoot) -> None:
    IndexReader(root).reload()


def verify_as_writer(root: IndexRoot) -> None:
    """Open what a takeover opens, without committing its generation, and verify what it defers."""
    index = IndexDirectory.open(root)
    store = index.shard_store(0)
    newest = read_newest(store)
    assert newest is not None
    for segment in open_for_look_ups(store, newest).segments.values():
        if isinstance(segment, DeferredSegment):
            segment.whole()
