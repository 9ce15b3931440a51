"""The traces of a shard's latest sampled records, so that a reader can say when it first serves them.

The file is no part of a generation. The writer replaces it before it commits such records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clip_index.errors import DamagedFile
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.shard_store import ShardStore

FILE_NAME = "traces.json"
MAX_TRACES = 512


@dataclass(frozen=True, slots=True)
class TracedRecord:
    """A sampled record: its offset, its producer's span (W3C `traceparent`), and when its commit began."""

    offset: int
    traceparent: str
    commit_ms: int


def write_traces(store: ShardStore, traces: Sequence[TracedRecord]) -> None:
    """Replace the file. `traces` are in the order of their commits; the last of them are kept."""
    entries = [[one.offset, one.traceparent, one.commit_ms] for one in traces[-MAX_TRACES:]]
    store.replace(FILE_NAME, dump_digested({"traces": entries}))


def read_traces(store: ShardStore) -> list[TracedRecord]:
    """Read the file; nothing if there is none, or one that cannot be read or understood."""
    try:
        fields = parse_digested(store.read(FILE_NAME), store.address_of(FILE_NAME))
        return [TracedRecord(int(offset), str(text), int(ms)) for offset, text, ms in fields["traces"]]
    except (OSError, DamagedFile, KeyError, TypeError, ValueError):
        return []  # traces help a person to understand; nothing depends on them
