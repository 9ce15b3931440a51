"""What every answer says about the snapshot that it comes from."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated

from pydantic import Field
from pydantic_core import to_json
from typing_extensions import Self

from clip_index.encoder.protocol import EncoderFingerprint
from query_api.contract.models import Answer
from query_api.serving.engine import Snapshot

_EPOCH = datetime(1970, 1, 1)
_MINUTES_OF_A_DAY = 1440
_NUM_DAYS_KEPT = 4096  # the text of a day takes about 100 bytes

# Looked up instead of written, because ten times of an answer would take as long as its JSON.
_TIMES = tuple(f"{minute // 60:02}:{minute % 60:02}" for minute in range(_MINUTES_OF_A_DAY))
_SECONDS = tuple(f"{second:02}" for second in range(60))
_FRACTIONS = ("", *(f".{millisecond:03}" for millisecond in range(1, 1000)))

RfcTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def rfc_time(milliseconds: int) -> str:
    """Write a time in milliseconds since 1970 as RFC 3339, UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes = seconds // 60
    date, time = _date(minutes // _MINUTES_OF_A_DAY), _TIMES[minutes % _MINUTES_OF_A_DAY]
    return f"{date}T{time}:{_SECONDS[seconds % 60]}{_FRACTIONS[rest]}Z"


@lru_cache(_NUM_DAYS_KEPT)
def _date(days: int) -> str:
    """Write a day, which many hits of one answer share. Writing it takes most of the time."""
    return (_EPOCH + timedelta(days)).date().isoformat()


class ShardCoverage(Answer):
    """What is covered of one shard: every event below `next_offset`, every event up to the watermark."""

    generation: int
    next_offset: int
    watermark: RfcTime | None
    damaged_generation: int | None = Field(
        default=None,
        description="A newer generation that is not served, because a file of it is damaged.",
    )


SnapshotAnswer = Annotated[
    dict[str, ShardCoverage], Field(description="Shard → what the answer covers of it.")
]


class EncoderAnswer(Answer):
    architecture: str
    dimension: int
    weights_digest: str
    preprocessing: str
    windowing: str
    fingerprint: str = Field(description="A short digest of all the others.")

    @classmethod
    def of(cls, fingerprint: EncoderFingerprint) -> Self:
        return cls(
            architecture=fingerprint.architecture,
            dimension=fingerprint.dimension,
            weights_digest=fingerprint.weights_digest,
            preprocessing=fingerprint.preprocessing,
            windowing=fingerprint.windowing,
            fingerprint=fingerprint.short,
        )


def build_snapshot(searcher: Snapshot) -> dict[str, ShardCoverage]:
    """Say what a searcher covers of each shard."""
    return {
        name: ShardCoverage(
            generation=shard.generation,
            next_offset=shard.next_offset,
            watermark=None if shard.watermark_ms is None else rfc_time(shard.watermark_ms),
            **({} if shard.damaged_generation is None else {"damaged_generation": shard.damaged_generation}),
        )
        for name, shard in searcher.shards.items()
    }


def snapshot_json(searcher: Snapshot) -> bytes:
    """Return the same as JSON. It is written once and kept with the searcher."""
    return searcher.once(_write_snapshot)


def _write_snapshot(searcher: Snapshot) -> bytes:
    return to_json(build_snapshot(searcher))
