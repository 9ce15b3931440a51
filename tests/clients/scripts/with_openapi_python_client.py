"""Upload, search and recommend with the package `generated` of openapi-python-client."""

from __future__ import annotations

import json
import sys

from generated import Client
from generated.api.contents import upload
from generated.api.search import recommend, search
from generated.models import (
    ErrorAnswer,
    FieldCondition,
    Filter,
    GivenMetadata,
    IncludedField,
    PublishedAnswer,
    RecommendAnswer,
    RecommendRequest,
    SearchAnswer,
    SearchRequest,
    UploadContent,
    UploadRequest,
    WeightedExample,
)

address, content_id = sys.argv[1:]
client = Client(base_url=address)

metadata = GivenMetadata.from_dict({"made_by": content_id, "price": 49.5, "in_stock": True})
body = UploadRequest(content_id=content_id, content=UploadContent(text="a red shoe"), metadata=metadata)
published = upload.sync(client=client, body=body, wait="searchable", timeout_ms=60_000)
assert isinstance(published, PublishedAnswer), published

wanted = SearchRequest(
    text="a red shoe",
    filter_=Filter(must=[FieldCondition(field="metadata.made_by", equals=content_id)]),
    include=[IncludedField.METADATA],
)
found = search.sync(client=client, body=wanted)
assert isinstance(found, SearchAnswer), found

like_it = RecommendRequest(positive=[WeightedExample(content_id=content_id)])
recommended = recommend.sync(client=client, body=like_it)
assert isinstance(recommended, RecommendAnswer), recommended

refused = search.sync(client=client, body=SearchRequest(k=3))
assert isinstance(refused, ErrorAnswer), refused

hits = found.results.text.hits
outcome = {
    "offset": published.offset,
    "found": [hit.content_id for hit in hits],
    "price": hits[0].metadata["price"],
    "recommended": len(recommended.results.text.hits),
    "refused": refused.error.code,
}
print(json.dumps(outcome))
