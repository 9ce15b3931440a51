"""A cluster of three nodes loses the node of a primary while contents are written and searched.

It starts three JVMs, so `make opensearch-cluster` runs it and the ordinary suite does not.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_index.content import Delta
from clip_index.errors import ClipIndexError
from fakes.shards import content, description, unit_vectors
from opensearch_engine.connection import Connection
from opensearch_engine.errors import EngineUnavailable
from opensearch_engine.index import OpenSearchIndex, create_index
from opensearch_engine.reader import OpenSearchReader
from opensearch_engine.shards import OpenSearchShards
from tests.consumer.running import eventually
from tests.opensearch_engine.conftest import settings_of
from tools.opensearch_node.node import OpenSearchCluster

PATIENCE_SECONDS = 240.0
LONGEST_SILENCE_SECONDS = 60.0
COMMITS_BETWEEN = 15
CONTENTS_OF_A_COMMIT = 5


class Ingest(threading.Thread):
    """Commits contents until it is stopped, and tries each commit again while the cluster cannot take it."""

    def __init__(self, index: OpenSearchIndex) -> None:
        super().__init__(name="ingest")
        self._index = index
        self.is_stopping = False
        self.num_acknowledged = 0
        self.num_failures = 0

    def run(self) -> None:
        writer = OpenSearchShards(self._index, "writer").become_owner(0, first_offset=0, own_epoch=None)
        while not self.is_stopping:
            start = writer.committed_next_offset
            try:
                if writer.next_offset == start:
                    offsets = range(start, start + CONTENTS_OF_A_COMMIT)
                    writer.add(Delta(start, offsets.stop, [content(f"c{o}", o) for o in offsets]))
                self.num_acknowledged = writer.commit()
            except EngineUnavailable:
                self.num_failures += 1


class Queries(threading.Thread):
    """Searches until it is stopped; remembers the longest time without an answer."""

    def __init__(self, index: OpenSearchIndex) -> None:
        super().__init__(name="queries")
        self._reader = OpenSearchReader(index.connection, "main")
        self.is_stopping = False
        self.num_answered = 0
        self.longest_silence_seconds = 0.0

    def run(self) -> None:
        answered_at = time.monotonic()
        while not self.is_stopping:
            try:
                self._reader.reload()
                assert self._reader.searcher is not None
                self._reader.searcher.search(unit_vectors(1), k=5, modality="image")
            except ClipIndexError:
                continue
            self.num_answered += 1
            silence, answered_at = time.monotonic() - answered_at, time.monotonic()
            self.longest_silence_seconds = max(self.longest_silence_seconds, silence)


@pytest.fixture
def cluster() -> Iterator[OpenSearchCluster]:
    with OpenSearchCluster(3) as cluster:
        yield cluster


def number_of_the_primarys_node(index: OpenSearchIndex) -> int:
    shards = index.connection.ask("GET", f"/_cluster/state/routing_table/{index.contents}-1")["routing_table"]
    copies = shards["indices"][f"{index.contents}-1"]["shards"]["0"]
    [primary] = [copy["node"] for copy in copies if copy["primary"]]
    nodes = index.connection.ask("GET", "/_nodes/_all/name")["nodes"]
    return int(nodes[primary]["name"].removeprefix("node-"))


if os.environ.get("CLIPTIDE_TEST_CLUSTER"):

    @pytest.mark.timeout(900)
    def test_the_death_of_a_primarys_node_loses_nothing_that_was_acknowledged(
        cluster: OpenSearchCluster, tmp_path: Path
    ) -> None:
        settings = settings_of(",".join(cluster.urls), num_replicas=1, timeout_seconds=5.0)
        index = create_index(Connection(settings), tmp_path, "main", description())
        index.connection.ask("GET", f"/_cluster/health/{index.contents}", wait_for_status="green")
        ingest, queries = Ingest(index), Queries(index)
        for thread in (ingest, queries):
            thread.start()
        try:
            enough = COMMITS_BETWEEN * CONTENTS_OF_A_COMMIT
            eventually(lambda: ingest.num_acknowledged >= enough, PATIENCE_SECONDS)
            cluster.kill(number_of_the_primarys_node(index))
            before, answered = ingest.num_acknowledged, queries.num_answered
            eventually(lambda: ingest.num_acknowledged >= before + enough, PATIENCE_SECONDS)
            eventually(lambda: queries.num_answered >= answered + COMMITS_BETWEEN, PATIENCE_SECONDS)
        finally:
            ingest.is_stopping = queries.is_stopping = True
            for thread in (ingest, queries):
                thread.join()
        assert queries.longest_silence_seconds < LONGEST_SILENCE_SECONDS
        reader = OpenSearchReader(index.connection, "main")
        reader.reload()
        assert reader.searcher is not None
        assert reader.searcher.shards[index.shard_name(0)].next_offset == ingest.num_acknowledged
        found = {one.content_id for one in reader.searcher.stored_offsets() if one.is_live}
        assert {f"c{offset}" for offset in range(ingest.num_acknowledged)} <= found
        print(  # noqa: T201 (shown with -s)
            f"{ingest.num_acknowledged} contents, {ingest.num_failures} commits tried again, "
            f"{queries.num_answered} answers, longest silence {queries.longest_silence_seconds:.1f} s"
        )
