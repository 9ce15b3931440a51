"""Values on their way into and out of JSON."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from query_api.answers.snapshot import rfc_time
from query_api.contract.filters import FieldCondition, Filter
from query_api.contract.models import ErrorAnswer
from query_api.contract.validation import EXAMPLES
from query_api.recommend.models import RecommendRequest, WeightedExample
from query_api.search.embed import EmbedContent, EmbedRequest
from query_api.search.request.models import BatchRequest, Query, SearchRequest, Term
from query_api.search.request.texts import SearchParameters
from query_api.uploads.bulk_models import BulkDeleteRequest, UncheckedUploads
from query_api.uploads.models import UploadContent, UploadRequest

TIMES = {
    "a whole second": (1_700_000_000_000, "2023-11-14T22:13:20Z"),
    "milliseconds": (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
    "the beginning": (0, "1970-01-01T00:00:00Z"),
    "before it": (-1, "1969-12-31T23:59:59.999Z"),
}


@pytest.mark.parametrize(("milliseconds", "text"), TIMES.values(), ids=TIMES)
def test_times_are_rfc_3339_in_utc(milliseconds: int, text: str) -> None:
    assert rfc_time(milliseconds) == text


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_times_are_written_as_pythons_own_without_microseconds(time: datetime) -> None:
    milliseconds = (time - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
    cut = time - timedelta(microseconds=time.microsecond % 1000)
    assert rfc_time(milliseconds) == cut.isoformat().removesuffix("000") + "Z"


def test_each_request_has_lists_and_maps_of_its_own() -> None:
    first, second = (SearchRequest.model_validate({"text": "red"}) for _ in range(2))
    assert (first.include, first.min_offsets) == ([], {})
    assert first.include is not second.include
    assert first.min_offsets is not second.min_offsets


@pytest.mark.parametrize("default", [{"include": []}, {"min_offsets": {}}], ids=["include", "min_offsets"])
def test_an_empty_list_or_map_beside_a_cursor_says_nothing(default: dict[str, Any]) -> None:
    assert SearchRequest.model_validate({"cursor": "abc", **default}).cursor == "abc"


def test_parameters_are_texts_that_become_values() -> None:
    texts = {"q": "red", "k": "3", "include": "text,vector", "min_offsets": "a-b:c-0:42,d-1:0"}
    parameters = SearchParameters.model_validate_strings(texts)
    assert parameters.k == 3
    assert parameters.include == ["text", "vector"]
    assert parameters.min_offsets == {"a-b:c-0": 42, "d-1": 0}


OBJECTS = (
    BatchRequest,
    BulkDeleteRequest,
    EmbedContent,
    EmbedRequest,
    FieldCondition,
    Filter,
    Query,
    RecommendRequest,
    SearchRequest,
    Term,
    UncheckedUploads,
    UploadContent,
    UploadRequest,
    WeightedExample,
)


@pytest.mark.parametrize("model", OBJECTS, ids=[model.__name__ for model in OBJECTS])
def test_who_writes_a_text_for_an_object_is_told_an_object_that_is_right(model: type[BaseModel]) -> None:
    model.model_validate_json(EXAMPLES[model.__name__])
    assert set(EXAMPLES) == {model.__name__ for model in OBJECTS}


def test_a_request_does_not_change() -> None:
    request = SearchRequest(text="red")
    with pytest.raises(ValidationError):
        request.k = 5


def test_schemas_forbid_what_parsing_forbids() -> None:
    schema = SearchRequest.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["k"]["maximum"] == 1000
    assert {"code", "message", "request_id", "details"} == set(
        ErrorAnswer.model_json_schema()["$defs"]["ErrorBody"]["properties"]
    )
