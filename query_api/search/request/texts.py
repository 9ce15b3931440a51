"""Searches in query strings and form fields, where every value is a text that must be converted."""

from __future__ import annotations

from typing import Annotated, TypeAlias, get_args

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from query_api.contract.models import (
    MAX_SHARDS,
    SEPARATED,
    ContentId,
    FieldText,
    FilePart,
    Include,
    NextOffset,
    QueryText,
    ShardName,
    split_list,
)
from query_api.contract.schema_rules import BLANKS, exactly_one_of
from query_api.search.request.options import FreshnessOptions, RankingOptions, SearchOptions

_INCLUDES = "|".join(get_args(Include))
_NAME_AND_OFFSET = f"[^:,{BLANKS}]+:[0-9]{{1,18}}"


def _split_offsets(value: object) -> object:
    """Read `content-uploads-0:42,content-uploads-3:7`."""
    if not isinstance(value, str):
        return value
    pairs = [part.rpartition(":") for part in value.split(",")]
    if not all(
        name
        and not any(map(str.isspace, name))
        and digits.isascii()
        and digits.isdigit()
        and len(digits) < 20
        for name, _, digits in pairs
    ):
        raise PydanticCustomError(
            "invalid_value", "must be a list like content-uploads-0:42,content-uploads-1:7, without blanks"
        )
    return {name: int(digits) for name, _, digits in pairs}


_Includes: TypeAlias = Annotated[list[Include], SEPARATED, BeforeValidator(split_list)]
_Offsets: TypeAlias = Annotated[
    dict[ShardName, NextOffset],
    Field(max_length=MAX_SHARDS, fail_fast=True),
    BeforeValidator(_split_offsets),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME_AND_OFFSET}(,{_NAME_AND_OFFSET})*$"}),
]


class VectorsParameters(RankingOptions, FreshnessOptions):
    """The query string of a batch whose body is vectors: the options of every search.

    Lists are separated by commas; an empty list is left out.
    """

    include: _Includes = Field(default_factory=list)
    min_offsets: _Offsets = Field(default={})
    filter: None = None  # query strings cannot write one


class _TextualOptions(SearchOptions):
    """Options as texts. Lists are separated by commas; an empty list is left out."""

    include: _Includes = Field(default_factory=list)
    min_offsets: _Offsets = Field(default={})
    content_id: ContentId | None = None
    filter: None = None  # forms and query strings name the fields one by one instead


class SearchParameters(_TextualOptions):
    """The query string of `GET /v1/search`. Beside these, `metadata.<key>` is what the key must equal."""

    q: QueryText | None = None
    source: FieldText | None = None
    owner_id: FieldText | None = None

    model_config = ConfigDict(json_schema_extra=exactly_one_of(("q", "content_id")))


class SearchForm(_TextualOptions):
    """The plain fields of a multipart search; its file part is `image`."""

    text: QueryText | None = None
    include: Annotated[
        list[Include],
        SEPARATED,
        BeforeValidator(split_list),
        WithJsonSchema({"type": "string", "pattern": f"^({_INCLUDES})(,({_INCLUDES})){{0,7}}$"}),
    ] = Field(default_factory=list)


class SearchMultipart(SearchForm):
    """A search as a form: the picture, and either plain fields or one JSON part named `query`."""

    image: FilePart | None = None
