"""What browsing takes and answers: looking at an index without a query."""

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
    modality: Modality | None = Field(default=None, description="Answer this modality alone.")
    filter: Filter | None = Field(default=None, description="Only contents that pass are answered.")
    include: list[Include] = Field(
        default=[], max_length=8, description="What contents carry beside their usual fields."
    )
    cursor: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="`next_cursor` of the answer before, to a request that was otherwise the same.",
    )


class NewestContents(Answer):
    hits: list[ContentHeadline] = Field(description="What occurred last comes first.")


class BrowseAnswer(Answer):
    results: dict[Modality, NewestContents] = Field(
        description="One entry for each modality asked for; behind a cursor, for each that goes on."
    )
    next_cursor: str | None = Field(description="Null when there is no more.")
    snapshot: SnapshotAnswer
    timings: Timings


class CountRequest(Request):
    """Which fields' values to count."""

    fields: list[CountedField] = Field(default=["modality", "source", "owner_id"], min_length=1, max_length=3)
    filter: Filter | None = Field(default=None, description="Only contents that pass are counted.")
    max_values: int = Field(default=50, ge=1, le=1000, description="How many values of a field to answer.")


class ValueCount(Answer):
    value: str
    count: int


class FieldCounts(Answer):
    values: list[ValueCount] = Field(description="The most frequent first.")
    num_values: int = Field(description="How many different values there are in all.")


class CountAnswer(Answer):
    fields: dict[CountedField, FieldCounts] = Field(description="One entry for each field asked for.")
    snapshot: SnapshotAnswer
    timings: Timings
