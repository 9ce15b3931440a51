"""Follows the progress of every partition, and gives a snapshot of each state that it sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clip_index.content import MODALITIES, Modality
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.errors import ClipIndexError, EncoderMismatch, GenerationGone, IndexMissing
from clip_index.generations.manifest import NO_GENERATION, GenerationKey
from clip_index.generations.traces import TracedRecord
from clip_index.generations.watermark import Watermark
from clip_index.storage.file_digest import FileDigest
from clip_index.views.snapshot import ShardSnapshot
from opensearch_engine.connection import Connection, Json
from opensearch_engine.filters import live_contents
from opensearch_engine.index import OpenSearchIndex, open_index
from opensearch_engine.progress import Progress, read_all, read_traces
from opensearch_engine.snapshot import OpenSearchSnapshot

_COUNT_EVERY_SECONDS = 1.0
_NOTHING = ShardSnapshot(0, 0, 0, None, {})


class OpenSearchReader:
    """Implements `Reader` of the query service. One thread at a time calls its methods."""

    def __init__(
        self,
        connection: Connection,
        index_id: str | None = None,
        fingerprint: EncoderFingerprint | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fingerprint` is that of the queries' encoder; None to read without an encoder."""
        self._connection = connection
        self._index_id = index_id
        self._fingerprint = fingerprint
        self._clock = clock
        self._counted_at = -_COUNT_EVERY_SECONDS
        self._has_old_counts = False
        self._counts: Mapping[str, Mapping[Modality, int]] = {}
        self.index: OpenSearchIndex | None = None
        self.searcher: OpenSearchSnapshot | None = None

    @property
    def lease_failure(self) -> None:
        return None  # nobody removes what this machine has open

    def may_have_news(self) -> bool:
        return True  # a cheaper question than that of `reload` does not exist

    def close(self) -> None:
        """Keep the connection, because other readers share it."""

    def reload(self) -> bool:
        """Look how far the partitions are; True if one has moved on.

        Raises `IndexMissing`, `EncoderMismatch`, `EngineRefused` or `EngineUnavailable`.
        """
        index, shards = self._look()
        has_changed = self.searcher is None or _keys(shards) != _keys(self.searcher.shards)
        if has_changed or self._has_old_counts:
            self._count(index)
        shards = {name: replace(shard, num_contents=self._counts[name]) for name, shard in shards.items()}
        if self.searcher is None or shards != self.searcher.shards:
            searcher = OpenSearchSnapshot(index, shards)
            if self.searcher is not None:
                searcher.find_newcomers(self.searcher.shards)
            self.searcher = searcher
        self.index = index
        return has_changed

    def open_former(self, generations: Mapping[str, GenerationKey]) -> OpenSearchSnapshot:
        """OpenSearch keeps no former state, so this is the newest one: a later page shows what is there now.

        `GenerationGone` names a shard that this index does not have.
        """
        if self.searcher is None:
            raise IndexMissing("no index is open yet")
        if strange := sorted(generations.keys() ^ self.searcher.shards.keys()):
            raise GenerationGone(strange[0], generations.get(strange[0], NO_GENERATION).number)
        return self.searcher

    def read_traces(self, shard: str) -> Sequence[TracedRecord]:
        if self.index is None or shard not in self.index.shard_names:
            return []
        try:
            return read_traces(self.index, self.index.partition_of(shard))
        except ClipIndexError:
            return []  # traces help a person to understand; nothing depends on them

    def mend(self, _path: Path) -> bool:
        return False  # OpenSearch keeps its files itself

    def served_files(self) -> Mapping[Path, FileDigest]:
        return {}

    def _look(self) -> tuple[OpenSearchIndex, dict[str, ShardSnapshot]]:
        """Read the state of the index. If it went back, another index lies there, and that one is opened."""
        index = self.index or self._open()
        shards = self._read_shards(index)
        if self.searcher is not None and _went_back(self.searcher.shards, shards):
            index = self._open()
            shards = self._read_shards(index)
        return index, shards

    def _open(self) -> OpenSearchIndex:
        index = open_index(self._connection, self._index_id)
        built_by = index.description.fingerprint
        if self._fingerprint is not None and not built_by.has_same_model_as(self._fingerprint):
            raise EncoderMismatch(built_by=str(built_by), running=str(self._fingerprint))
        return index

    def _read_shards(self, index: OpenSearchIndex) -> dict[str, ShardSnapshot]:
        return {
            name: _shard_snapshot(progress, watermark)
            for name, (progress, watermark) in zip(index.shard_names, read_all(index), strict=True)
        }

    def _count(self, index: OpenSearchIndex) -> None:
        """Count the contents, but not at every commit: counting reads the whole index."""
        now = self._clock()
        self._has_old_counts = now - self._counted_at < _COUNT_EVERY_SECONDS
        if not self._has_old_counts:
            self._counts = _count_contents(index)
            self._counted_at = now


def _shard_snapshot(progress: Progress | None, watermark: Watermark | None) -> ShardSnapshot:
    if progress is None:
        return _NOTHING
    is_valid = watermark is not None and watermark.next_offset <= progress.next_offset
    return ShardSnapshot(
        generation=progress.generation,
        first_offset=progress.first_offset,
        next_offset=progress.next_offset,
        watermark_ms=watermark.watermark_ms if watermark is not None and is_valid else None,
        num_contents={},
        digest=progress.nonce[:16],
    )


def _count_contents(index: OpenSearchIndex) -> dict[str, dict[Modality, int]]:
    by_modality = {"terms": {"field": "modality"}}
    by_shard = {
        "terms": {"field": "shard", "size": len(index.shard_names)},
        "aggs": {"modality": by_modality},
    }
    body: Json = {"query": live_contents(), "size": 0, "aggs": {"shard": by_shard}}
    path, whole = f"/{index.contents}/_search", {"allow_partial_search_results": False}
    found = index.connection.ask("POST", path, body, **whole)["aggregations"]["shard"]
    counted = {one["key"]: _counts_of(one) for one in found["buckets"]}
    return {name: counted.get(name, dict.fromkeys(MODALITIES, 0)) for name in index.shard_names}


def _counts_of(bucket: Mapping[str, Any]) -> dict[Modality, int]:
    counts = {one["key"]: one["doc_count"] for one in bucket["modality"]["buckets"]}
    return {modality: counts.get(modality, 0) for modality in MODALITIES}


def _went_back(former: Mapping[str, ShardSnapshot], shards: Mapping[str, ShardSnapshot]) -> bool:
    return any(shard.generation < former[name].generation for name, shard in shards.items())


def _keys(shards: Mapping[str, ShardSnapshot]) -> dict[str, tuple[GenerationKey, int | None]]:
    return {name: (shard.key, shard.watermark_ms) for name, shard in shards.items()}
