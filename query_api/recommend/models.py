"""The body that `/v1/recommend` takes, and its answer."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from clip_index.content import Modality
from query_api.answers.snapshot import SnapshotAnswer
from query_api.contract.models import Answer, ContentId, Timings
from query_api.contract.schema_rules import JsonSchema, exactly_one_of, is_given
from query_api.search.request.models import MAX_WEIGHT, Example, HitAnswer
from query_api.search.request.options import FreshnessOptions, RankingOptions
from query_api.search.request.request_costs import refuse_costly

MAX_EXAMPLES = 64


class WeightedExample(Example):
    weight: float = Field(default=1.0, gt=0, le=MAX_WEIGHT)


def _say_its_forms(schema: JsonSchema) -> None:
    schema |= exactly_one_of(("positive", "owner_id"))
    schema["anyOf"] = [is_given("positive"), {"properties": {"negative": {"maxItems": 0}}}]


class RecommendRequest(RankingOptions, FreshnessOptions):
    """Either `positive` examples (and `negative` ones), or the `owner_id` whose uploads are the examples."""

    model_config = ConfigDict(json_schema_extra=_say_its_forms)

    positive: list[WeightedExample] | None = Field(
        default=None, min_length=1, max_length=MAX_EXAMPLES, fail_fast=True
    )
    negative: list[WeightedExample] = Field(
        default=[], max_length=MAX_EXAMPLES, fail_fast=True, description="What the hits should be unlike."
    )
    owner_id: ContentId | None = Field(
        default=None,
        description="Recommend by what this owner uploaded. The owner's own contents are not answered.",
    )
    novelty: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="With `owner_id`: the share of hits that lie outside the owner's interests.",
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How much the hits should differ from each other; at 0 the score alone decides.",
    )

    @model_validator(mode="after")
    def _has_a_bounded_cost(self) -> Self:
        refuse_costly([*(self.positive or ()), *self.negative])
        return self

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.positive is None) == (self.owner_id is None):
            raise PydanticCustomError(
                "one_query_required", "needs either positive examples or an owner_id, and not both"
            )
        if self.negative and self.positive is None:
            raise PydanticCustomError("invalid_value", "negative examples need positive ones beside them")
        return self


class Because(Answer):
    """Why a hit is recommended."""

    kind: Literal["example", "interest", "novelty"]
    content_id: str | None = Field(
        description="The id of the example, if it has one, or of the upload that represents the interest."
    )
    example: int | None = Field(default=None, description="The position of the example in `positive`.")


class RecommendedHit(HitAnswer):
    because: Because


class RecommendedHits(Answer):
    hits: list[RecommendedHit] = Field(description="Best first.")


class InterestAnswer(Answer):
    content_id: str = Field(description="The upload that represents this interest.")
    num_uploads: int
    weight: float = Field(description="The weight by size and recency; all weights sum to 1.")


class RecommendAnswer(Answer):
    results: dict[Modality, RecommendedHits] = Field(description="One entry for each modality asked for.")
    missing_ids: list[str] = Field(description="Examples that are not live contents; they were skipped.")
    interests: list[InterestAnswer] = Field(
        description="The interests that the owner's uploads show, the heaviest first."
    )
    snapshot: SnapshotAnswer
    timings: Timings
