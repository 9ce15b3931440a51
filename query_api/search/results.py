"""The write step: hits become the JSON of an answer. Blocking."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic_core import to_json

from query_api.answers.headlines import JsonObject, read_headlines_of_hits
from query_api.answers.snapshot import snapshot_json
from query_api.contract.models import Include
from query_api.search.ranking.rating import RatedHit, RatedHits
from query_api.serving.engine import Hit, Snapshot
from query_api.telemetry.stages import Stages


def write_results(
    searcher: Snapshot, rated: RatedHits, include: Collection[Include]
) -> dict[str, JsonObject]:
    """Write the hits of each modality, or those of all in one ranking."""
    return {name: {"hits": _write_rated(searcher, hits, include)} for name, hits in rated.items()}


def _write_rated(
    searcher: Snapshot, rated: Sequence[RatedHit], include: Collection[Include]
) -> list[JsonObject]:
    """Read and write the fields of a `HitAnswer` that are shown of each hit, and no others."""
    written = read_headlines_of_hits(searcher, [hit for hit, _ in rated], include)
    for fields, (hit, percentile) in zip(written, rated, strict=True):
        fields["score"] = hit.score
        if percentile is not None:
            fields["percentile"] = percentile
    return written


def write_hits(searcher: Snapshot, hits: Sequence[Hit], include: Collection[Include]) -> list[JsonObject]:
    """Read and write the fields of hits without a percentile."""
    return _write_rated(searcher, [(hit, None) for hit in hits], include)


def write_answer(answer: JsonObject, searcher: Snapshot, stages: Stages) -> bytes:
    """Add what every answer carries, the snapshot and the timings, and write the answer as JSON."""
    written = to_json(answer, inf_nan_mode="null")
    timings = to_json(stages.as_milliseconds())
    return b'%b,"snapshot":%b,"timings":%b}' % (written[:-1], snapshot_json(searcher), timings)
