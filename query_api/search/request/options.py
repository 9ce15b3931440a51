"""The options of a search, beside its query."""

from __future__ import annotations

from pydantic import Field

from clip_index.content import Modality
from query_api.contract.filters import Filter
from query_api.contract.models import (
    MAX_K,
    MAX_SHARDS,
    MAX_WAIT_MS,
    Include,
    NextOffset,
    Request,
    ShardName,
)
from query_api.contract.schema_rules import EMPTY_LIST, EMPTY_MAP


class RankingOptions(Request):
    """Which contents are answered."""

    k: int = Field(default=10, ge=1, le=MAX_K, description="How many contents of each modality to answer.")
    modality: Modality | None = Field(
        default=None,
        description="Answer this modality alone. Without it each modality has a ranking of its own.",
    )
    min_score: float | None = Field(
        default=None, ge=-1, le=1, description="The least cosine similarity that a hit may have."
    )
    filter: Filter | None = Field(
        default=None, description="Only contents that pass this filter are answered."
    )
    collapse_identical: bool = Field(
        default=False,
        description="Answer only one of the contents with the same embedding (copies of a picture).",
    )
    include: list[Include] = Field(
        default_factory=list,
        json_schema_extra=EMPTY_LIST,
        max_length=8,
        fail_fast=True,
        description="What hits contain beside their usual fields.",
    )


class RatedOptions(RankingOptions):
    """Options of a search whose scores can be compared with those of other queries, by percentile."""

    min_percentile: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The least percentile of a hit. At 0.9 a meaningless text finds little or nothing.",
    )
    by_modality: bool = Field(
        default=True,
        description="If false, all modalities share one ranking by percentile, under `all`. Pages need true.",
    )

    @property
    def needs_percentiles(self) -> bool:
        return self.min_percentile is not None or not self.by_modality


class FreshnessOptions(Request):
    """What the index must cover before the answer is made."""

    min_offsets: dict[ShardName, NextOffset] = Field(
        default_factory=dict,
        json_schema_extra=EMPTY_MAP,
        max_length=MAX_SHARDS,
        fail_fast=True,
        description="For each shard the least next offset that the answer must cover: every event below it.",
    )
    timeout_ms: int = Field(
        default=1000,
        ge=0,
        le=MAX_WAIT_MS,
        description="How long to wait until the index covers `min_offsets`.",
    )


class SearchOptions(RatedOptions, FreshnessOptions):
    """All options of a search, whatever it searches for."""
