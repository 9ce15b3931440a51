"""Builders with a default for every argument: contents, deltas, indexes and writers on a temporary root."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clip_index.content import (
    FACT_NAMES,
    Change,
    ContentFacts,
    Delta,
    EncodedContent,
    PatchedContent,
    RemovedContent,
)
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.storage.index_roots import IndexRoot
from clip_index.writing.shard_writer import ShardWriter, WriterSettings

DIMENSION = 16


def fingerprint(**changes: Any) -> EncoderFingerprint:
    fields: dict[str, Any] = {
        "architecture": "test-encoder",
        "weights_digest": "00",
        "dimension": DIMENSION,
        "preprocessing": "none",
        "windowing": "none",
    }
    return EncoderFingerprint(**{**fields, **changes})


def description(**changes: Any) -> IndexDescription:
    fields: dict[str, Any] = {
        "topic": "content-uploads",
        "topic_id": "topic-id-1",
        "num_partitions": 1,
        "group_id": "cliptide-main",
        "fingerprint": fingerprint(),
    }
    return IndexDescription(**{**fields, **changes})


def create_index(root: IndexRoot, **changes: Any) -> IndexDirectory:
    return IndexDirectory.create(root, "main", description(**changes))


def root_of(index: IndexDirectory) -> IndexRoot:
    """Return the root that an index was created on."""
    if isinstance(index.store, ObjectShardStore):
        return ObjectShardStore(index.store.bucket, index.store.cache)
    return index.path.parent.parent


def unit_vectors(seed: int, num_rows: int = 1, dimension: int = DIMENSION) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((num_rows, dimension)).astype(np.float32)
    normalised: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


def content(content_id: str, offset: int = 0, **changes: Any) -> EncodedContent:
    """Build a content whose embedding depends on its id, version and offset."""
    seed = changes.pop("seed", zlib.crc32(f"{content_id} {changes.get('version')} {offset}".encode()))
    facts: dict[str, Any] = {"source": "shop", "occurred_at_ms": 1_700_000_000_000 + offset}
    facts |= {name: changes.pop(name) for name in FACT_NAMES if name in changes}
    fields: dict[str, Any] = {
        "content_id": content_id,
        "offset": offset,
        "modality": "image",
        "embeddings": unit_vectors(seed, changes.pop("num_rows", 1)),
        "facts": ContentFacts(**facts),
    }
    return EncodedContent(**{**fields, **changes})


def with_facts(content: EncodedContent, **facts: Any) -> EncodedContent:
    """The content with other facts."""
    return replace(content, facts=replace(content.facts, **facts))


def removal(content_id: str, offset: int = 0, version: int | None = None) -> RemovedContent:
    return RemovedContent(content_id, offset, version)


def patch(content_id: str, offset: int = 0, **changes: Any) -> PatchedContent:
    fields: dict[str, Any] = {"content_id": content_id, "offset": offset}
    return PatchedContent(**{**fields, "occurred_at_ms": 1_700_000_100_000 + offset, **changes})


def take_over(
    index: IndexDirectory, partition: int = 0, writer_id: str = "writer", **changes: Any
) -> ShardWriter:
    claim = Claim(writer_id, changes.pop("first_offset", 0), changes.pop("own_epoch", None))
    return ShardWriter.take_over(index, partition, claim, **{"settings": WriterSettings(), **changes})


def add(writer: ShardWriter, changes: Sequence[Callable[[int], Change]] | Sequence[Change]) -> None:
    """Add changes one after another at the writer's next offsets."""
    first = writer.next_offset
    placed = [c(first + i) if callable(c) else c for i, c in enumerate(changes)]
    writer.add(Delta(first, first + len(placed), placed))


def pack_path(writer: ShardWriter, number: int = -1) -> Path:
    """Return the file of one of a writer's segments, by default the newest one."""
    return path_of(writer) / writer.manifest.segments[number].stored_name


def path_of(writer: ShardWriter) -> Path:
    """Return the directory of a writer's shard, for tests that damage or count files."""
    return Path(writer.store.address)
