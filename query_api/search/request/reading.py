"""The read step: a search request from JSON, a form or a query string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from clip_index.row_filter import METADATA_PREFIX
from query_api.contract.filters import Filter, filter_from_texts
from query_api.contract.media_types import wrong_media_type
from query_api.contract.route import OCTETS
from query_api.contract.validation import (
    error_from_validation,
    model_from_texts,
    model_from_values,
    object_from_json,
)
from query_api.contract.vectors import vectors_from_bytes
from query_api.errors import ApiError
from query_api.http.bodies.form_fields import read_plain_fields
from query_api.http.bodies.reading import (
    parse_body,
    read_body,
    read_json_body,
    read_parameters,
    read_parts,
    refuse_ambiguous,
    refuse_fields_of_body,
    refuse_large_json,
)
from query_api.search.request.models import MAX_QUERIES, BatchRequest, Query, SearchRequest
from query_api.search.request.texts import SearchForm, SearchParameters, VectorsParameters
from query_api.swap.served_pair import SERVED

_PLAIN_FIELDS = frozenset(SearchForm.model_fields) - {"filter"}


async def read_search_body(request: web.Request) -> SearchRequest:
    """Read a search from a JSON or a multipart body."""
    if request.content_type == "application/json":
        return await read_json_body(request, SearchRequest)
    if request.content_type == "multipart/form-data":
        parts = await read_parts(request)
        refuse_large_json(request, parts.get("query", b""))
        return await parse_body(request, len(parts.get("query", b"")), lambda: _search_from_parts(parts))
    wanted = "application/json, or multipart/form-data with a picture in the part image"
    raise wrong_media_type(request.headers, wanted)


async def read_batch_body(request: web.Request) -> BatchRequest:
    """Read a batch from a JSON body, or from vectors one after another."""
    if request.content_type == "application/json":
        refuse_fields_of_body(request, VectorsParameters)
        return await read_json_body(request, BatchRequest)
    if request.content_type == OCTETS and "Content-Type" in request.headers:  # aiohttp's word for none
        parameters = read_parameters(request, VectorsParameters)
        body = await read_body(request)
        dimension = request[SERVED].encoder.fingerprint.dimension
        return await parse_body(request, len(body), lambda: _batch_of(body, dimension, parameters))
    raise wrong_media_type(request.headers, f"application/json, or {OCTETS} with vectors alone")


def _batch_of(body: bytes, dimension: int, parameters: VectorsParameters) -> BatchRequest:
    """Build the batch that asks for the same as these bytes."""
    of_all = {"min_offsets", "timeout_ms"}
    vectors = vectors_from_bytes(body, dimension, max_vectors=MAX_QUERIES)
    options = parameters.model_dump(exclude_unset=True, exclude=of_all)
    first = model_from_values(Query, {"vector": vectors[0], **options})
    queries = [first, *(first.model_copy(update={"vector": vector}) for vector in vectors[1:])]
    freshness = parameters.model_dump(exclude_unset=True, include=of_all)
    return model_from_values(BatchRequest, {"queries": queries, **freshness})


def read_search_parameters(request: web.Request) -> SearchRequest:
    """Read a search from the query string, where `q` is the text."""
    refuse_ambiguous(request)
    metadata = {name: text for name, text in request.query.items() if name.startswith(METADATA_PREFIX)}
    texts = {name: text for name, text in request.query.items() if name not in metadata}
    fields = model_from_texts(SearchParameters, texts).model_dump(exclude_unset=True)
    if ("q" in fields) == ("content_id" in fields):
        raise ApiError("one_query_required", "needs either q, a text, or content_id")
    if "q" in fields:
        fields["text"] = fields.pop("q")
    wanted = {name: fields.pop(name) for name in ("source", "owner_id") if name in fields} | metadata
    if wanted:
        fields["filter"] = _filter_of(wanted)
    return model_from_values(SearchRequest, fields)


def _filter_of(wanted: Mapping[str, str]) -> Filter:
    try:
        return filter_from_texts(wanted)
    except ValidationError as error:
        raise error_from_validation(error) from None


def _search_from_parts(parts: Mapping[str, bytes]) -> SearchRequest:
    fields = dict(parts)
    image = fields.pop("image", None)
    query = fields.pop("query", None)
    if query is not None and fields:
        raise ApiError(
            "bad_multipart", "give the fields in a JSON part named query or as plain parts, not both"
        )
    values = object_from_json(query, "query") if query is not None else _values_from_plain_fields(fields)
    if image is not None:
        values["image"] = image
    return model_from_values(SearchRequest, values)


def _values_from_plain_fields(fields: Mapping[str, bytes]) -> dict[str, Any]:
    texts = read_plain_fields(fields, _PLAIN_FIELDS, code="bad_multipart")
    return model_from_texts(SearchForm, texts).model_dump(exclude_unset=True)
