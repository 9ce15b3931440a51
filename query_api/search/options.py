"""The options of a search, beside its query."""

from __future__ import annotations

from pydantic import Field

from clip_index.content import Modality
from query_api.contract.filters import Filter
from query_api.contract.models import MAX_K, MAX_WAIT_MS, Include, NextOffset, Request


class RankingOptions(Request):
    """Which contents are answered."""

    k: int = Field(default=10, ge=1, le=MAX_K, description="How many contents of each modality to answer.")
    modality: Modality | None = Field(
        default=None, description="Answer only this modality. By default both are answered, in two rankings."
    )
    min_score: float | None = Field(
        default=None, ge=-1, le=1, description="The minimum cosine similarity of a hit."
    )
    filter: Filter | None = Field(
        default=None, description="Only contents that pass this filter are answered."
    )
    collapse_identical: bool = Field(
        default=False,
        description="Answer only one of several contents with the same embedding (the same image).",
    )
    include: list[Include] = Field(
        default=[], max_length=8, description="Which further fields to answer for each hit."
    )


class RatedOptions(RankingOptions):
    """Options of a search whose hits have percentiles, which can be compared between queries."""

    min_percentile: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The minimum percentile of a hit. With 0.9 a nonsense text finds little or nothing.",
    )
    by_modality: bool = Field(
        default=True,
        description="`false`: rank all modalities together by percentile, as `all`. Not with `paged`.",
    )

    @property
    def needs_percentiles(self) -> bool:
        return self.min_percentile is not None or not self.by_modality


class FreshnessOptions(Request):
    """Which uploads the answer must cover."""

    min_offsets: dict[str, NextOffset] = Field(
        default={},
        description="Shard → next offset. The answer covers every event below it, or the request waits.",
    )
    timeout_ms: int = Field(
        default=1000, ge=0, le=MAX_WAIT_MS, description="How long to wait for `min_offsets`, in milliseconds."
    )


class SearchOptions(RatedOptions, FreshnessOptions):
    """All options of a search."""
