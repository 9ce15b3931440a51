"""What is wrong with a field, in the words of whoever wrote the request, and what they may have meant."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from service.value_errors import value_error

HINT = "did you mean"
_CONTENT = 'content: {"text": …} or {"image": …}'
_DELETE_IDS = 'filter: {"must": [{"field": "content_id", "any_of": […]}]}'
_MEANT: Mapping[str, str] = MappingProxyType(  # names in other services → ours, where the model has ours
    {
        **dict.fromkeys(("limit", "top_k", "topk", "top", "size", "n", "num", "count", "num_images"), "k"),
        **dict.fromkeys(("num_results", "max_results", "n_results", "per_page", "page_size"), "k"),
        **dict.fromkeys(("query", "q", "prompt", "search", "query_text", "query_texts"), "text"),
        **dict.fromkeys(("img", "picture", "photo", "file", "image_base64", "base64"), "image"),
        **dict.fromkeys(("id", "_id", "doc_id", "document_id", "point_id", "ids", "key"), "content_id"),
        **dict.fromkeys(("embedding", "query_vector", "embedding_input", "vectors"), "vector"),
        **dict.fromkeys(("score_threshold", "threshold", "min_similarity"), "min_score"),
        **dict.fromkeys(("where", "query_filter", "post_filter"), "filter"),
        **dict.fromkeys(("with_payload", "with_vectors", "with_vector", "_source", "fields"), "include"),
        **dict.fromkeys(("output_fields", "include_metadata"), "include"),
        **dict.fromkeys(("type", "kind", "media_type"), "modality"),
        **dict.fromkeys(("deduplicate", "dedup", "unique"), "collapse_identical"),
        **dict.fromkeys(("searches", "requests"), "queries"),
        **dict.fromkeys(("positives", "like", "examples"), "positive"),
        **dict.fromkeys(("negatives", "unlike"), "negative"),
        **dict.fromkeys(("user", "user_id", "owner", "author"), "owner_id"),
        **dict.fromkeys(("page_token", "next_cursor", "scroll_id", "search_after"), "cursor"),
        **dict.fromkeys(("payload", "properties", "attributes", "tags", "meta"), "metadata"),
        **dict.fromkeys(("url", "href", "uri"), "link"),
        **dict.fromkeys(("timestamp", "time", "date", "created_at", "uploaded_at"), "occurred_at"),
        **dict.fromkeys(("name", "field_name", "column"), "field"),
        **dict.fromkeys(("match", "eq", "value", "term", "is"), "equals"),
        **dict.fromkeys(("in", "any", "values", "terms", "one_of"), "any_of"),
        **dict.fromkeys(("and", "all", "filter_by"), "must"),
        **dict.fromkeys(("or",), "should"),
        **dict.fromkeys(("not", "must_none", "none"), "must_not"),
        **dict.fromkeys(("range",), "gt, gte, lt or lte"),
    }
)
_OFFSETS = frozenset({"offset", "from", "start", "skip", "page", "after"})
_SPECIAL: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "SearchParameters": dict.fromkeys(("text", "query", "search", "prompt"), "q"),
        "FieldCondition": {
            **dict.fromkeys(("prefix", "contains", "includes", "has"), "equals or any_of"),
            **dict.fromkeys(("contains_any", "nested"), "any_of"),
            **dict.fromkeys(("contains_all", "all"), "all_of"),
            **dict.fromkeys(("ne", "neq", "not", "not_equals"), 'equals, in a condition of "must_not"'),
            **dict.fromkeys(("between",), "gte and lte"),
            "key": "field",
            "exist": "exists",
        },
        "BulkDeleteRequest": dict.fromkeys(
            ("id", "ids", "content_id", "content_ids", "contents"), _DELETE_IDS
        ),
        "UploadRequest": dict.fromkeys(("text", "image", "caption", "document", "data"), _CONTENT),
    }
)
_CONDITION_FIELDS = ("modality", "source", "owner_id", "content_id", "occurred_at")
_CONDITION_PARTS = frozenset(
    ("field", "key", "value", "equals", "match", "term", "terms", "any_of", "all_of")
) | frozenset(("exists", "range", "gt", "gte", "lt", "lte"))
_SHOWN_ONLY = ("title", "link", "text", "version")
_MAX_NAME_CHARACTERS = 60


def message_of(item: ErrorDetails, model: type[BaseModel] | None) -> str:
    """Say what is wrong in a sentence that continues the field's name. `model` is that of the whole body."""
    if item["type"] == "extra_forbidden":
        return "unknown field" + _suggestion(str(item["loc"][-1]), _model_at(model, item["loc"][:-1]))
    if item["type"] == "string_pattern_mismatch":
        return "has a form that is not allowed"
    return value_error(item)


def named(name: str) -> str | None:
    """Return a client's own name if it may stand in a message: short and plain."""
    is_plain = len(name) <= _MAX_NAME_CHARACTERS and name.replace("_", "").replace("-", "").isalnum()
    return name if is_plain else None


def metadata_hint(name: str) -> str:
    """Say how a filter reaches a field that it does not have itself."""
    if name in _SHOWN_ONLY:
        return f"; a content's {name} cannot be filtered, but metadata.{name} can if uploads have it"
    return f"; {HINT} metadata.{name}?"


def _suggestion(name: str, model: type[BaseModel] | None) -> str:
    """Return what follows "unknown field": what the client may have meant.

    A long name has no near one, and to look for it would take seconds.
    """
    if model is None or named(name) is None:
        return ""
    fields, lowered = model.model_fields, name.lower()
    if model.__name__ == "Filter" and lowered in _CONDITION_PARTS:
        return '; did you mean {"must": [{"field": …, "equals": …}]}?'
    meant = _SPECIAL.get(model.__name__, {}).get(lowered) or _MEANT.get(lowered)
    if meant is not None and (meant in fields or not meant.isidentifier()):
        return f"; did you mean {meant}?"
    if lowered in _OFFSETS and "cursor" in fields:
        pages = '"paged": true and then "cursor"' if "paged" in fields else '"cursor"'
        return f"; pages go on by {pages}, not by an offset"
    if near := get_close_matches(lowered, fields, n=1):
        return f"; did you mean {near[0]}?"
    return _about_metadata(name, model)


def _about_metadata(name: str, model: type[BaseModel]) -> str:
    """Say where a field of the client's own belongs, in a model that takes such."""
    if model.__name__ == "Filter" and name in _SHOWN_ONLY:
        return metadata_hint(name)
    if model.__name__ == "Filter":
        field = name if name in _CONDITION_FIELDS else f"metadata.{name}"
        return f'; did you mean {{"must": [{{"field": "{field}", "equals": …}}]}}?'
    if "metadata" in model.model_fields:
        return f'; fields of your own belong into metadata: {{"{name}": …}}'
    if model.__name__ == "SearchParameters":
        return metadata_hint(name)
    return ""


def _model_at(model: type[BaseModel] | None, path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the model that a path of fields leads to."""
    for part in path:
        if model is None:
            return None
        if isinstance(part, str):
            field = model.model_fields.get(part)
            model = None if field is None else _model_in(field.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a list, of a union with null, or the annotation itself if it is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((one for one in found if one is not None), None)
