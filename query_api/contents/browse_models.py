"""The models of browsing, which shows an index without a query."""

from __future__ import annotations

from pydantic import Field

from clip_index.content import Modality
from query_api.answers.headlines import ContentHeadline
from query_api.answers.snapshot import SnapshotAnswer
from query_api.contract.filters import Filter
from query_api.contract.models import MAX_K, Answer, Include, Request, Timings
from query_api.serving.engine import CountedField


class BrowseRequest(Request):
    """Which contents to show."""

    k: int = Field(default=10, ge=1, le=MAX_K, description="How many contents of each modality to answer.")
    modality: Modality | None = Field(default=None, description="Answer only this modality.")
    filter: Filter | None = Field(
        default=None, description="Only contents that pass this filter are answered."
    )
    include: list[Include] = Field(
        default=[], max_length=8, fail_fast=True, description="Which further fields to answer."
    )
    cursor: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="The `next_cursor` of the previous answer. All other fields must stay the same.",
    )


class NewestContents(Answer):
    hits: list[ContentHeadline] = Field(description="Newest first.")


class BrowseAnswer(Answer):
    results: dict[Modality, NewestContents] = Field(
        description="One entry for each modality asked for; after a cursor, for each that has more."
    )
    unknown_fields: list[str] | None = Field(
        default=None,
        description="Fields of metadata in the filter that no content has. Present only if nothing is found "
        "and there are such fields.",
    )
    next_cursor: str | None = Field(description="Null when there are no more contents.")
    snapshot: SnapshotAnswer
    timings: Timings


class CountRequest(Request):
    """Which fields' values to count."""

    fields: list[CountedField] = Field(
        default=["modality", "source", "owner_id"], min_length=1, max_length=3, fail_fast=True
    )
    filter: Filter | None = Field(
        default=None, description="Only contents that pass this filter are counted."
    )
    max_values: int = Field(default=50, ge=1, le=1000, description="How many values of each field to answer.")


class ValueCount(Answer):
    value: str
    count: int


class FieldCounts(Answer):
    values: list[ValueCount] = Field(description="Most frequent first.")
    num_values: int = Field(description="How many different values the field has.")


class CountAnswer(Answer):
    fields: dict[CountedField, FieldCounts] = Field(description="One entry for each field asked for.")
    snapshot: SnapshotAnswer
    timings: Timings
