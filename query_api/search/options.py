"""What a search may be told beside its query."""

from __future__ import annotations

from pydantic import Field

from clip_index.content import Modality
from query_api.contract.filters import Filter
from query_api.contract.models import MAX_K, MAX_WAIT_MS, Include, NextOffset, Request


class RankingOptions(Request):
    """Which contents are answered for what is asked."""

    k: int = Field(default=10, ge=1, le=MAX_K, description="How many contents of each modality to answer.")
    modality: Modality | None = Field(
        default=None, description="Answer this modality alone; without it both are answered, each by itself."
    )
    min_score: float | None = Field(
        default=None, ge=-1, le=1, description="The least cosine similarity of a hit."
    )
    filter: Filter | None = Field(default=None, description="Only contents that pass are answered.")
    collapse_identical: bool = Field(
        default=False, description="Of contents with the same embedding (the same picture) answer only one."
    )
    include: list[Include] = Field(
        default=[], max_length=8, description="What hits carry beside their usual fields."
    )


class RatedOptions(RankingOptions):
    """Options of a search, whose scores can be compared with those of other queries."""

    min_percentile: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The least percentile of a hit. At 0.9 a text without sense finds little or nothing.",
    )
    by_modality: bool = Field(
        default=True,
        description="False: one ranking of all modalities by percentile, under `all`; not in pages.",
    )

    @property
    def needs_percentiles(self) -> bool:
        return self.min_percentile is not None or not self.by_modality


class FreshnessOptions(Request):
    """What the answer must cover."""

    min_offsets: dict[str, NextOffset] = Field(
        default={},
        description="Shard → next offset that must be searchable: every event below it is covered.",
    )
    timeout_ms: int = Field(
        default=1000, ge=0, le=MAX_WAIT_MS, description="How long to wait for `min_offsets`."
    )


class SearchOptions(RatedOptions, FreshnessOptions):
    """How to search, whatever is searched for."""
