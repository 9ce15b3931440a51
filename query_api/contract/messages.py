"""What is wrong with a field, in the words of whoever wrote the request, and what they may have meant."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_WORDS: Mapping[str, str] = MappingProxyType(  # instead of pydantic's, which address the author of a model
    {
        "missing": "is missing",
        "none_required": "must be left out here",
        "string_type": "must be a text",
        "string_unicode": "must be a text in Unicode",
        "bytes_type": "must be a text",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "list_type": "must be a list",
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "model_attributes_type": "must be an object",
        "invalid_key": "must have texts as names",
        "finite_number": "must be a finite number",
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "too_short": "needs {min_length} or more entries",
        "too_long": "may have at most {max_length} entries",
        "string_too_short": "must not be empty",
        "bytes_too_short": "must not be empty",
        "string_too_long": "may have at most {max_length} characters",
        "string_pattern_mismatch": "has a form that is not allowed",
    }
)
HINT = "did you mean"
_CONTENT = 'content: {"text": …} or {"image": …}'
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
        "FieldCondition": {"key": "field", "exist": "exists", "prefix": "equals or any_of"},
        "UploadRequest": dict.fromkeys(("text", "image", "caption", "document", "data"), _CONTENT),
    }
)
_CONDITION_FIELDS = ("modality", "source", "owner_id", "content_id", "occurred_at")
_MAX_NAME_CHARACTERS = 60


def message_of(item: ErrorDetails, model: type[BaseModel] | None) -> str:
    """Say what is wrong in a sentence that continues the field's name. `model` is that of the whole body."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown field" + _suggestion(str(item["loc"][-1]), _model_at(model, item["loc"][:-1]))
    if kind == "literal_error":
        return f"must be {str(context.get('expected', '')).replace(chr(39), '')}"
    words = _WORDS.get(kind)
    return item["msg"] if words is None else words.format_map(context)


def named(name: str) -> str | None:
    """Return a client's own name if it may stand in a message: short and plain."""
    is_plain = len(name) <= _MAX_NAME_CHARACTERS and name.replace("_", "").replace("-", "").isalnum()
    return name if is_plain else None


def _suggestion(name: str, model: type[BaseModel] | None) -> str:
    """Return what follows "unknown field": what the client may have meant.

    A long name has no near one, and to look for it would take seconds.
    """
    if model is None or named(name) is None:
        return ""
    fields, lowered = model.model_fields, name.lower()
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
    if model.__name__ == "Filter":
        field = name if name in _CONDITION_FIELDS else f"metadata.{name}"
        return f'; did you mean {{"must": [{{"field": "{field}", "equals": …}}]}}?'
    if "metadata" in model.model_fields:
        return f'; fields of your own belong into metadata: {{"{name}": …}}'
    if model.__name__ == "SearchParameters":
        return f"; did you mean metadata.{name}?"
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
