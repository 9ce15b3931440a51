"""What schemathesis checks beside its own: valid requests are refused only for what no schema can say.

Stricter than its `positive_data_acceptance`, which looks at statuses: one 422 would excuse all others.
And what it has to be told: writes are seen by those who wait for them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import schemathesis

NO_SCHEMA_SAYS = MappingProxyType(
    {
        "bad_cursor": "which cursors were given out",
        "bad_json": "that the text of a parameter or part is JSON",
        "body_too_large": "how large all fields together may be",
        "content_too_large": "how large a content may be inline",
        "generation_gone": "how long a generation is kept",
        "headers_too_large": "how long a path and query string become when encoded",
        "image_too_large": "how many pixels bytes decode to",
        "log_unavailable": "how long a record the log takes",
        "no_thumbnail": "which contents have one",
        "not_an_image": "which bytes are a picture",
        "not_finite": "which bytes are finite numbers",
        "not_searchable_in_time": "how soon it is searchable",
        "not_unicode": "that the bytes are a text when the query string says so",
        "not_yet_covered": "what is searchable now",
        "set_aside": "what the consumer finds when it decodes the picture",
        "superseded": "which version is there already",
        "text_too_long": "how many tokens a text has",
        "too_many_contents": "how many contents pass a filter",
        "too_many_hits": "what numbers add up to",
        "truncated_image": "which bytes are a whole picture",
        "unknown_content": "which contents there are",
        "unknown_partition": "which partitions there are",
        "unknown_route": "which files the page and the docs have",
        "unsupported_image": "which bytes are a picture of a kind that is taken",
        "wrong_dimension": "how many bytes a text in base64 or a body has",
        "zero_vector": "that some number is not zero once it is stored",
    }
)


ONLY_THERE = MappingProxyType(
    {
        ("GET /v1/search", "one_query_required"): "parameters cannot exclude each other",
        ("POST /mv_retrieval/v0.1/add_content", "empty_content"): "that the bytes are a text in that case",
        ("POST /mv_retrieval/v0.1/retrieve_contents", "empty_text"): "that the bytes are a text in that case",
        (
            "POST /v1/contents",
            "invalid_field",
        ): "that a time is of 1990 to 2099, and an id not . or ..",
        ("PATCH /v1/contents/{content_id}", "invalid_field"): "how many bytes a title or a link has",
        ("PATCH /v1/contents/{content_id}", "metadata_too_large"): "how many bytes all of them have",
        ("POST /v1/contents/delete", "invalid_value"): "that a filter has a condition",
        ("POST /v1/search/batch", "unknown_field"): "which kind of body takes parameters in the address",
        ("POST /v1/contents", "missing_field"): "which kind of body needs which parameters",
        ("POST /v1/contents", "unknown_field"): "which kind of body allows which parameters",
    }
)
ONLY_IN_FORMS = (
    MappingProxyType(  # a rule over parts with files makes schemathesis 4.32 fail: Unsupported type
        {
            "empty_content": "that one of text and image must be there",
            "one_query_required": "that exactly one of text, image and content_id must be there",
        }
    )
)
NO_INTEGER = "must be a whole number"  # no schema tells 1.0, which is refused, from 1


@schemathesis.check
def valid_requests_are_refused_only_for_what_no_schema_says(_: Any, response: Any, case: Any) -> None:
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code < 400:
        return
    error = response.json()["error"]
    is_excused = (
        error["code"] in NO_SCHEMA_SAYS
        or (case.operation.label, error["code"]) in ONLY_THERE
        or (case.media_type == "multipart/form-data" and error["code"] in ONLY_IN_FORMS)
    )
    assert is_excused or error["message"].endswith(NO_INTEGER), f"{error['code']}: {error['message']}"


@schemathesis.hook
def before_call(_: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Where one call follows another, wait for what the former wrote: without, it is there some time later.

    schemathesis holds that a content can be read as soon as it is created, and no more once it is deleted.
    """
    del kwargs
    is_write = case.method in ("POST", "DELETE") and case.operation.path.startswith("/v1/contents")
    if is_write and case.meta is not None and case.meta.phase.name == "stateful":
        case.query["wait"] = "searchable"
