"""The request and the answer of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from query_api.answers.headlines import ContentHeadline
from query_api.answers.snapshot import SnapshotAnswer
from query_api.contract.models import (
    Answer,
    Base64Bytes,
    ContentId,
    Cursor,
    QueryText,
    Request,
    Timings,
)
from query_api.contract.schema_rules import JsonSchema, alone_with, exactly_one_of
from query_api.contract.vectors import Vector
from query_api.search.request.options import FreshnessOptions, RatedOptions
from query_api.search.request.request_costs import refuse_costly, refuse_many_conditions

MAX_TERMS = 16
MAX_QUERIES = 64
MAX_BATCH_K = 6400  # with embeddings of 512 numbers the answer has 140 MB
MAX_WEIGHT = 100.0

_NULL: JsonSchema = {"type": "null"}
_COMPARABLE: JsonSchema = {
    "anyOf": [
        {"properties": {"min_percentile": _NULL, "by_modality": {"const": True}}},
        {"properties": {"vector": _NULL, "terms": _NULL}},
    ]
}
_MIXED_PAGES: JsonSchema = {
    "required": ["paged", "by_modality"],
    "properties": {"paged": {"const": True}, "by_modality": {"const": False}},
}


def _say_its_kinds(schema: JsonSchema, model: type[Example]) -> None:
    schema |= exactly_one_of(model.kinds)
    if "min_percentile" in model.model_fields:
        schema |= _COMPARABLE


class Example(Request):
    """Exactly one of `text`, `image`, `content_id` and `vector`."""

    model_config = ConfigDict(json_schema_extra=_say_its_kinds)

    kinds: ClassVar[tuple[str, ...]] = ("text", "image", "content_id", "vector")

    text: QueryText | None = None
    image: Base64Bytes | None = Field(
        default=None, description="A JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO or JPEG 2000 file."
    )
    content_id: ContentId | None = Field(
        default=None,
        description="Search by the embedding of this content, which is not among the hits itself.",
    )
    vector: Vector | None = Field(
        default=None,
        description="An embedding: one number for each dimension of the encoder, as a list, or as "
        "little-endian float32 numbers in base64.",
    )

    @model_validator(mode="after")
    def _has_one_query(self) -> Self:
        given = [name for name in self.kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_query_required",
                "needs exactly one of {kinds}, not {number}",
                {"kinds": ", ".join(self.kinds), "number": len(given)},
            )
        return self


class Term(Example):
    """A part of a combined query. Hits should be unlike a term with a negative weight."""

    weight: float = Field(default=1.0, ge=-MAX_WEIGHT, le=MAX_WEIGHT)


class Query(RatedOptions, Example):
    """One thing to search for, and the options of the search."""

    kinds: ClassVar[tuple[str, ...]] = (*Example.kinds, "terms")

    terms: list[Term] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_TERMS,
        fail_fast=True,
        description="Search by the weighted sum of several embeddings.",
    )

    @model_validator(mode="after")
    def _is_comparable(self) -> Self:
        if self.needs_percentiles and (self.vector is not None or self.terms is not None):
            raise PydanticCustomError("invalid_value", "percentiles need a text, an image or a content_id")
        return self


Queries = Annotated[
    list[Query],
    Field(
        min_length=1,
        max_length=MAX_QUERIES,
        fail_fast=True,
        description="Queries to answer in this order, each with its own options. "
        f"Their `k` may add up to {MAX_BATCH_K}.",
    ),
]


def _refuse_many_hits(queries: Sequence[Query]) -> None:
    if (total := sum(query.k for query in queries)) > MAX_BATCH_K:
        raise PydanticCustomError(
            "too_many_hits",
            "the k of all queries add up to {total}; at most {most} hits are answered together",
            {"total": total, "most": MAX_BATCH_K},
        )


def _refuse_costly_queries(queries: Sequence[Query]) -> None:
    refuse_costly([*queries, *(term for query in queries for term in query.terms or ())])
    refuse_many_conditions(queries)


class BatchRequest(FreshnessOptions):
    """Up to 64 queries that are encoded and searched together, which costs less than one by one."""

    queries: Queries

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        _refuse_many_hits(self.queries)
        _refuse_costly_queries(self.queries)
        return self


def _say_its_forms(schema: JsonSchema, model: type[Example]) -> None:
    page = alone_with("cursor", ["k"])
    schema["oneOf"] = [exactly_one_of(Query.kinds) | {"properties": {"cursor": _NULL}}, page]
    schema |= _COMPARABLE | {"not": _MIXED_PAGES}


class SearchRequest(Query, FreshnessOptions):
    """One query, by exactly one of `text`, `image`, `content_id`, `vector` and `terms`; or the next page
    of an earlier query, by `cursor`.
    """

    model_config = ConfigDict(json_schema_extra=_say_its_forms)

    kinds: ClassVar[tuple[str, ...]] = (*Query.kinds, "queries", "cursor")

    queries: SkipJsonSchema[Queries | None] = None  # the former form of `POST /v1/search/batch`
    cursor: Cursor | None = Field(
        default=None,
        description="`next_cursor` of an earlier answer: the page after it. Only `k` may stand beside it.",
    )
    paged: bool = Field(
        default=False,
        description="Answer a `next_cursor` as long as there are more hits, up to the first 10,000.",
    )

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        queries = self.queries or ()
        _refuse_many_hits(queries)
        _refuse_costly_queries([self, *queries])
        return self

    @model_validator(mode="after")
    def _has_only_what_counts(self) -> Self:
        allowed = self.model_fields_set
        if self.paged and not self.by_modality:
            raise PydanticCustomError("invalid_value", "paged searches need by_modality")
        if self.queries is not None:
            allowed = {"queries", "min_offsets", "timeout_ms"}
        elif self.cursor is not None:
            allowed = {"cursor", "k"}
        if surplus := sorted(name for name in self.model_fields_set - allowed if self._says_something(name)):
            raise PydanticCustomError(
                "invalid_value",
                "cannot stand beside {kind}: {names}",
                {"kind": "queries" if self.queries else "cursor", "names": ", ".join(surplus)},
            )
        return self

    def _says_something(self, name: str) -> bool:
        """Whether a field has another value than its default, which many clients send with every request."""
        default = type(self).model_fields[name].get_default(call_default_factory=True)
        return bool(getattr(self, name) != default)


class HitAnswer(ContentHeadline):
    score: float = Field(description="The cosine similarity of the content and the query.")
    percentile: float | None = Field(
        default=None,
        description="The share of background queries whose best hit rises less above their mean score than "
        "this hit does. Background queries are nonsense for a text, and the index's own pictures for a "
        "picture. Absent for other searches.",
    )


class ModalityResults(Answer):
    hits: list[HitAnswer] = Field(description="The best hit first.")


class QueryAnswer(Answer):
    results: dict[Literal["text", "image", "all"], ModalityResults] = Field(
        description="One entry for each modality asked for; only `all` if `by_modality` is false."
    )
    unknown_fields: list[str] | None = Field(
        default=None,
        description="Fields of metadata in the filter that no content has. Present only if nothing is found "
        "and there are such fields.",
    )


class SearchAnswer(QueryAnswer):
    next_cursor: str | None = Field(
        default=None, description="For `paged` searches, as long as there are more hits."
    )
    snapshot: SnapshotAnswer
    timings: Timings


class BatchAnswer(Answer):
    answers: list[QueryAnswer] = Field(description="One for each query, in order.")
    snapshot: SnapshotAnswer
    timings: Timings
