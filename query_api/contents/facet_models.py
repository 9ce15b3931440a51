"""The models of facets: which values contents have, under a query and a filter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from clip_index.content import Modality
from query_api.answers.snapshot import SnapshotAnswer
from query_api.contract.filters import FIELD_PATTERN, Filter, known_field
from query_api.contract.models import Answer, Base64Bytes, ContentId, QueryText, Request, Timings
from query_api.contract.schema_rules import JsonSchema, is_given
from query_api.contract.unions import one_of_types
from query_api.search.request.models import MAX_TERMS, Query, Term
from query_api.search.request.request_costs import refuse_costly

MAX_COUNTED = 1000
"""How many contents of each modality are read. This is what a request of facets costs at most."""

MAX_FIELDS = 32
_KINDS = ("text", "image", "content_id", "terms")

FacetField = Annotated[
    str, Field(max_length=512, json_schema_extra={"pattern": FIELD_PATTERN}), AfterValidator(known_field)
]
FacetValue = Annotated[str | bool, one_of_types("a text, true or false")]
Bound = Annotated[float | str, one_of_types("a number or an RFC 3339 time")]


def _say_its_kinds(schema: JsonSchema) -> None:
    """Say in the schema that there is one query at most, and which ones have percentiles."""
    unrated: JsonSchema = {"min_percentile": {"type": "null"}}
    without: JsonSchema = {"properties": {**_absent(_KINDS), **unrated}}
    branches = {kind: is_given(kind) for kind in _KINDS}
    for kind, branch in branches.items():
        branch["properties"] |= _absent([other for other in _KINDS if other != kind])
    branches["terms"]["properties"] |= unrated
    schema["oneOf"] = [without, *branches.values()]


def _absent(kinds: Iterable[str]) -> JsonSchema:
    return {kind: {"type": "null"} for kind in kinds}


class FacetRequest(Request):
    """At most one of `text`, `image`, `content_id` and `terms`; without any, all contents are counted."""

    model_config = ConfigDict(json_schema_extra=_say_its_kinds)

    text: QueryText | None = None
    image: Base64Bytes | None = Field(default=None, description="A picture, as in a search.")
    content_id: ContentId | None = None
    terms: list[Term] | None = Field(default=None, min_length=1, max_length=MAX_TERMS, fail_fast=True)
    min_percentile: float | None = Field(
        default=None, ge=0, le=1, description="Count only hits of this percentile. Needs a query."
    )
    modality: Modality | None = Field(default=None, description="Count only this modality.")
    filter: Filter | None = Field(
        default=None, description="Only contents that pass this filter are counted."
    )
    fields: list[FacetField] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_FIELDS,
        fail_fast=True,
        description="The fields to answer. By default `modality`, `source`, `owner_id`, `occurred_at` and "
        "the keys of metadata that most of the counted contents have.",
    )
    max_values: int = Field(default=20, ge=1, le=1000, description="How many values of each field to answer.")

    @property
    def has_query(self) -> bool:
        return any(getattr(self, kind) is not None for kind in _KINDS)

    @model_validator(mode="after")
    def _has_one_query_at_most(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in _KINDS) > 1:
            raise PydanticCustomError("one_query_required", "has more than one query")
        if self.min_percentile is not None and (self.terms is not None or not self.has_query):
            raise PydanticCustomError("invalid_value", "percentiles need a text, an image or a content_id")
        refuse_costly([self, *(self.terms or ())])
        return self

    def as_query(self) -> Query:
        """Return the search whose hits are counted."""
        return Query.model_construct(  # both models have the same parts, and this one has checked them
            text=self.text,
            image=self.image,
            content_id=self.content_id,
            terms=self.terms,
            min_percentile=self.min_percentile,
            modality=self.modality,
            filter=self.filter,
            k=MAX_COUNTED + 1,  # one more tells whether that is all
        )


class FacetValueCount(Answer):
    value: FacetValue
    count: int


class FacetRange(Answer):
    min: Bound
    max: Bound


class Facet(Answer):
    """The most frequent values of a field, or the range of its numbers or times."""

    values: list[FacetValueCount] | None = Field(default=None, description="Most frequent first.")
    num_values: int | None = Field(default=None, description="How many different values were found.")
    range: FacetRange | None = Field(default=None, description="Of numbers, and of occurred_at.")


class FacetAnswer(Answer):
    fields: dict[str, Facet] = Field(description="By field: `source`, `metadata.colour` and so on.")
    unknown_fields: list[str] | None = Field(
        default=None,
        description="Fields of metadata that the request names, in `fields` or in the filter, and no content "
        "has. Absent if there are none.",
    )
    num_counted: int = Field(description="How many contents were read.")
    is_complete: bool = Field(
        description=f"False if more contents match than the {MAX_COUNTED} of each modality that are read: "
        "the best hits, or without a query the newest contents. Without a query the counts of modality, "
        "source and owner_id are complete even then."
    )
    snapshot: SnapshotAnswer
    timings: Timings
