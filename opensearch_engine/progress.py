"""How far each partition is: a document that its owner replaces after the contents are searchable.

It is written only over the document that its writer has seen last (`if_seq_no`), so a writer that has
been fenced finds another one there, and never moves the progress of its successor back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from clip_index.errors import Fenced
from clip_index.generations.traces import MAX_TRACES, TracedRecord
from clip_index.generations.watermark import Watermark
from opensearch_engine.connection import Json
from opensearch_engine.errors import EngineConflict, EngineMissing
from opensearch_engine.index import OpenSearchIndex


@dataclass(frozen=True, slots=True)
class Progress:
    """Every change of `[first_offset, next_offset)` is searchable. `nonce` is another one in each write."""

    generation: int
    epoch: int
    writer_id: str
    nonce: str
    first_offset: int
    next_offset: int


class Position(NamedTuple):
    """Which write of a document was its last."""

    seq_no: int
    primary_term: int


@dataclass(slots=True)
class ProgressDocument:
    """The progress of one partition, as one writer last saw it."""

    index: OpenSearchIndex
    partition: int
    stored: Progress | None = None
    _position: Position | None = None

    def read(self) -> Progress | None:
        """Look at what is stored now; None while there is nothing."""
        found = self.index.connection.read_document(self.index.state, progress_id(self.partition))
        if found is None:
            self.stored = self._position = None
        else:
            self.stored = progress_from_source(found["_source"])
            self._position = Position(found["_seq_no"], found["_primary_term"])
        return self.stored

    def write(self, progress: Progress) -> None:
        """Replace what was seen last; `EngineConflict` if that is no longer there."""
        path = f"/{self.index.state}/_doc/{progress_id(self.partition)}"
        if self._position is None:
            expected: Json = {"op_type": "create"}
        else:
            expected = {"if_seq_no": self._position.seq_no, "if_primary_term": self._position.primary_term}
        answer = self.index.connection.ask("PUT", path, asdict(progress), require_alias=True, **expected)
        self.stored, self._position = progress, Position(answer["_seq_no"], answer["_primary_term"])

    def write_as_owner(self, progress: Progress) -> None:
        """Replace the progress of this writer; `Fenced` if another writer owns the partition.

        A write whose answer was lost may have been stored. Then the document is ours, and is replaced.
        """
        while True:
            try:
                return self.write(progress)
            except EngineConflict:
                found = self.read()
                if found is not None and found.nonce == progress.nonce:
                    return None
                self.check_owner(found, progress)

    def check_owner(self, found: Progress | None, own: Progress) -> None:
        if found is None:
            raise EngineMissing(f"the progress of partition {self.partition} is gone from {self.index.state}")
        if (found.epoch, found.writer_id) != (own.epoch, own.writer_id):
            raise Fenced(self.index.shard_name(self.partition), own.epoch, found.epoch)


def progress_id(partition: int) -> str:
    return f"progress-{partition}"


def _watermark_id(partition: int) -> str:
    return f"watermark-{partition}"


def _traces_id(partition: int) -> str:
    return f"traces-{partition}"


def progress_from_source(source: Json) -> Progress:
    return Progress(**{one.name: source[one.name] for one in fields(Progress)})


def read_all(index: OpenSearchIndex) -> list[tuple[Progress | None, Watermark | None]]:
    """Return the progress and the watermark of each partition."""
    partitions = range(index.description.num_partitions)
    ids = [*map(progress_id, partitions), *map(_watermark_id, partitions)]
    sources = [found.get("_source") for found in index.connection.read_documents(index.state, ids)]
    progress, watermarks = sources[: len(partitions)], sources[len(partitions) :]
    return [
        (progress_from_source(one) if one else None, _watermark_from(mark))
        for one, mark in zip(progress, watermarks, strict=True)
    ]


def write_watermark(index: OpenSearchIndex, partition: int, watermark: Watermark) -> None:
    """Replace the watermark, unless an owner with a greater epoch has written one."""
    path = f"/{index.state}/_doc/{_watermark_id(partition)}"
    version: dict[str, Any] = {"version": watermark.writer_epoch, "version_type": "external_gte"}
    try:
        index.connection.ask("PUT", path, asdict(watermark), require_alias=True, **version)
    except EngineConflict:
        return


def read_watermark(index: OpenSearchIndex, partition: int) -> Watermark | None:
    found = index.connection.read_document(index.state, _watermark_id(partition))
    return None if found is None else _watermark_from(found["_source"])


def _watermark_from(source: Json | None) -> Watermark | None:
    return None if source is None else Watermark(**{one.name: source[one.name] for one in fields(Watermark)})


def write_traces(index: OpenSearchIndex, partition: int, traces: Sequence[TracedRecord]) -> None:
    """Replace the latest sampled records of a partition. They are in the order of their commits."""
    rows = [[one.offset, one.traceparent, one.commit_ms] for one in traces[-MAX_TRACES:]]
    index.connection.ask(
        "PUT", f"/{index.state}/_doc/{_traces_id(partition)}", {"traces": rows}, require_alias=True
    )


def read_traces(index: OpenSearchIndex, partition: int) -> list[TracedRecord]:
    found = index.connection.read_document(index.state, _traces_id(partition))
    return [] if found is None else [TracedRecord(*row) for row in found["_source"]["traces"]]
