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
_DAY_MS = 86_400_000
_MINUTES_OF_A_DAY = 1440
_NUM_DAYS_KEPT = 4096  # the text of a day takes about 100 bytes

RfcTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def rfc_time(milliseconds: int) -> str:
    """Write a time in milliseconds since 1970 as RFC 3339, UTC."""
    days, rest = divmod(milliseconds, _DAY_MS)
    minutes, rest = divmod(rest, 60_000)
    seconds, rest = divmod(rest, 1000)
    fraction = f".{rest:03}" if rest else ""
    return f"{_date(days)}T{_hour_and_minute(minutes)}:{seconds:02}{fraction}Z"


@lru_cache(_NUM_DAYS_KEPT)
def _date(days: int) -> str:
    """Write a day, which many hits of one answer share. Writing it takes most of the time."""
    return (_EPOCH + timedelta(days)).date().isoformat()


@lru_cache(_MINUTES_OF_A_DAY)
def _hour_and_minute(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


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
