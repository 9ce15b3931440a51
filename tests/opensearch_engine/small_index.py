"""The small index of the query service's tests, in OpenSearch."""

from __future__ import annotations

from pathlib import Path

from clip_index.encoder.protocol import Encoder
from clip_index.indexes.index_directory import IndexDescription
from opensearch_engine.connection import Connection
from opensearch_engine.index import create_index
from opensearch_engine.reader import OpenSearchReader
from opensearch_engine.shards import OpenSearchShards, OpenSearchShardWriter
from tests.query_api.small_index import TOPIC, SmallIndex


class SmallIndexInOpenSearch(SmallIndex):
    """Like `SmallIndex`: each `commit` is one generation of one shard."""

    def __init__(
        self, connection: Connection, root: Path, *, encoder: Encoder | None = None, num_partitions: int = 2
    ) -> None:
        super().__init__(root, encoder=encoder, num_partitions=num_partitions)
        self._connection = connection
        self._owned: dict[int, OpenSearchShardWriter] = {}

    def create(self) -> SmallIndexInOpenSearch:
        fingerprint = self.encoder.fingerprint
        description = IndexDescription(TOPIC, None, self._num_partitions, "cliptide-main", fingerprint)
        self._index = create_index(self._connection, self.root, "main", description)
        return self

    def open_reader(self, encoder: Encoder | None = None) -> OpenSearchReader:  # type: ignore[override]
        return OpenSearchReader(self._connection, None, (encoder or self.encoder).fingerprint)

    def _writer(self, partition: int) -> OpenSearchShardWriter:  # type: ignore[override]
        if partition not in self._owned:
            shards = OpenSearchShards(self._index, "test")
            self._owned[partition] = shards.become_owner(partition, first_offset=0, own_epoch=None)
        return self._owned[partition]
