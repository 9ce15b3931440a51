"""Flips a bit of an object or of a machine's copy of it, or cuts it short.

A damaged object is refused by every machine that fetches it. A damaged copy is fetched again, so that its
machine answers as before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_index.errors import DamagedFile
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.buckets.object_bucket import ObjectBucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from crashes.damage import CHANGES, Damage, build_packs, misses_of, verify_as_writer
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import unit_vectors

_EVERYTHING = 10_000


def damaged_objects(directory: Path, *, seed: int, number: int) -> Iterator[Damage]:
    """Damage one object after another, each kind in turn, and restore it before the next."""
    dice, bucket = random.Random(seed), memory_bucket()
    build_packs(object_store(bucket, "", directory / "writer"))
    by_kind = _by_kind(sorted(bucket.list_all("")))
    for i in range(number):
        kind = sorted(by_kind)[i % len(by_kind)]
        key, change = dice.choice(by_kind[kind]), dice.choice(CHANGES)
        whole = b"".join(bucket.chunks(key))
        bucket.put(key, change(whole, dice))
        machine = object_store(bucket, "", directory / f"machine-{i}")
        yield Damage(f"object {kind}", change.__name__, misses_of(machine, kind))
        bucket.put(key, whole)


def damaged_copies(directory: Path, *, seed: int, number: int) -> Iterator[Damage]:
    """Damage one copy after another; whoever opens it next has to fetch it again."""
    dice, bucket = random.Random(seed), memory_bucket()
    build_packs(object_store(bucket, "", directory / "writer"))
    expected = _answers(_machine(bucket, directory))
    for _ in range(number):
        path, change = dice.choice(_copies(directory)), dice.choice(CHANGES)
        damaged = change(path.read_bytes(), dice)
        path.chmod(0o644)
        path.write_bytes(damaged)
        yield Damage(f"copy {path.suffix}", change.__name__, _not_healed(bucket, directory, expected))


def _copies(directory: Path) -> list[Path]:
    """Return the copies that are there now: a file that is fetched again takes those of its parts away."""
    return sorted(
        path
        for path in (directory / "machine" / "copies").rglob("*")
        if path.is_file() and path.stat().st_size
    )


def _by_kind(keys: Sequence[str]) -> dict[str, list[str]]:
    """Sort the objects that a reader of the newest generation needs."""
    newest = max(key for key in keys if "/manifest-" in key)
    kinds = {
        "current": [key for key in keys if key.startswith("current-")],
        "index.json": [key for key in keys if key.endswith("/index.json")],
        "manifest": [newest],
        "pack": [key for key in keys if key.endswith(".pack")],
        "tombstones": [key for key in keys if "/tombstones/" in key],
        "watermark.json": [key for key in keys if key.endswith("/watermark.json")],
    }
    return {kind: found for kind, found in kinds.items() if found}


def _machine(bucket: ObjectBucket, directory: Path) -> ObjectShardStore:
    return object_store(bucket, "", directory / "machine")


def _answers(root: ObjectShardStore) -> list[tuple[str, float]]:
    verify_as_writer(root)
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    hits = reader.searcher.search(unit_vectors(1), k=_EVERYTHING, modality="image")[0]
    hits += reader.searcher.search(unit_vectors(1), k=_EVERYTHING, modality="text")[0]
    return [(hit.content_id, hit.score) for hit in hits]


def _not_healed(bucket: ObjectBucket, directory: Path, expected: Sequence[tuple[str, float]]) -> list[str]:
    try:
        found = _answers(_machine(bucket, directory))
    except (DamagedFile, OSError) as error:
        return [f"machine, which refuses it: {error}"]
    return [] if found == expected else ["machine, which answers something else"]
