"""Which sampled records a process begins to serve with a new searcher."""

from __future__ import annotations

from collections.abc import Iterator

from query_api.serving.engine import Reader, Snapshot
from query_api.telemetry.tracing import SearchableRecord


def newly_searchable(reader: Reader, former: Snapshot, searcher: Snapshot) -> Iterator[SearchableRecord]:
    """Yield the sampled records that `searcher` covers and `former` did not; blocking."""
    for name, shard in searcher.shards.items():
        known = former.shards.get(name)
        if known is None or known.next_offset >= shard.next_offset:
            continue
        for traced in reader.read_traces(name):
            if known.next_offset <= traced.offset < shard.next_offset:
                yield SearchableRecord(
                    name, traced.offset, traced.traceparent, traced.commit_ms, shard.generation
                )
