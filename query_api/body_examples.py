"""JSON bodies that the document shows, so that the first call from `/docs` is one that is answered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

Examples: TypeAlias = Mapping[str, Any]  # what it is good for → the body

SEARCHES: Examples = MappingProxyType(
    {
        "pictures for a text": {"text": "a red dress", "k": 5, "modality": "image"},
        "with a filter, metadata beside the hits": {
            "text": "a red dress",
            "filter": {
                "must": [
                    {"field": "source", "any_of": ["shop", "demo"]},
                    {"field": "metadata.price", "lt": 20},
                ]
            },
            "include": ["text", "metadata"],
        },
        "nothing for nonsense": {"text": "a red dress", "min_percentile": 0.9},
        "what is like a content": {"content_id": "shoe-1", "k": 5},
        "this, but less of that": {"terms": [{"text": "a red dress"}, {"text": "stripes", "weight": -0.5}]},
        "two queries at once": {"queries": [{"text": "a red dress"}, {"text": "a blue hat", "k": 3}]},
        "in pages: next_cursor leads on": {"text": "a red dress", "modality": "image", "paged": True},
    }
)
RECOMMENDATIONS: Examples = MappingProxyType(
    {
        "more like this, less like that": {
            "positive": [{"content_id": "shoe-1"}, {"text": "summer", "weight": 0.5}],
            "negative": [{"text": "leather"}],
            "k": 5,
        },
        "for an owner": {"owner_id": "owner-9", "modality": "image", "k": 5},
    }
)
UPLOADS: Examples = MappingProxyType(
    {
        "a text": {
            "content_id": "shoe-1",
            "source": "shop",
            "owner_id": "owner-9",
            "link": "https://shop.example/shoe-1",
            "content": {"text": "a red shoe"},
            "metadata": {"colour": "red", "price": 49.5, "in_stock": True},
        }
    }
)
EMBEDDINGS: Examples = MappingProxyType(
    {"two texts": {"contents": [{"text": "a red dress"}, {"text": "a blue hat"}]}}
)
