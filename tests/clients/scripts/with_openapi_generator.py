"""Upload, search and recommend with the package `generated` of openapi-generator's python generator."""

from __future__ import annotations

import json
import sys

from generated import (
    ApiClient,
    ApiException,
    Configuration,
    ContentsApi,
    FieldCondition,
    Filter,
    FilterValue,
    MetadataValue,
    RecommendRequest,
    SearchApi,
    SearchRequest,
    UploadContent,
    UploadRequest,
    WeightedExample,
)

address, content_id = sys.argv[1:]
client = ApiClient(Configuration(host=address))
contents, searches = ContentsApi(client), SearchApi(client)

values = {"made_by": content_id, "price": 49.5, "in_stock": True}
body = UploadRequest(
    content_id=content_id,
    content=UploadContent(text="a red shoe"),
    metadata={name: MetadataValue(value) for name, value in values.items()},
)
published = contents.upload(body, wait="searchable", timeout_ms=60_000)

made_by = FieldCondition(field="metadata.made_by", equals=FilterValue(content_id))
wanted = SearchRequest(text="a red shoe", filter=Filter(must=[made_by]), include=["metadata"])
found = searches.search(wanted)
recommended = searches.recommend(RecommendRequest(positive=[WeightedExample(content_id=content_id)]))

refused = ""
try:
    searches.search(SearchRequest(k=3))
except ApiException as error:
    refused = error.data.error.code

hits = found.results.text.hits
outcome = {
    "offset": published.offset,
    "found": [hit.content_id for hit in hits],
    "price": hits[0].metadata["price"].actual_instance,
    "recommended": len(recommended.results.text.hits),
    "refused": refused,
}
print(json.dumps(outcome))
