"""What an index is made of in OpenSearch: the names of its parts, their settings and their fields.

`cliptide-<id>-contents` holds one document for each content, `cliptide-<id>-state` the description of
the index and the progress of each partition. Both are aliases, so that an operator can put another
index behind them, and so that a write into an index that is gone fails instead of creating an empty one.
`cliptide-current` names the index that serves where none is asked for.
"""

from __future__ import annotations

import re

from opensearch_engine.connection import Json, OpenSearchSettings
from opensearch_engine.errors import EngineRefused

CURRENT = "cliptide-current"
CURRENT_ID = "current"
DESCRIPTION_ID = "description"
SPACE = "innerproduct"
"""Vectors have length 1, so the inner product is the cosine; each engine of the plugin knows this space."""

_INDEX_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_ID_BYTES = 512


def check_index_id(index_id: str) -> None:
    """Raise `EngineRefused` for a name that OpenSearch does not take."""
    if not _INDEX_ID.fullmatch(index_id):
        raise EngineRefused(f"index id {index_id!r} must match {_INDEX_ID.pattern} in OpenSearch")


def contents_alias(index_id: str) -> str:
    return f"cliptide-{index_id}-contents"


def state_alias(index_id: str) -> str:
    return f"cliptide-{index_id}-state"


def contents_index(settings: OpenSearchSettings, index_id: str, dimension: int) -> Json:
    """What creates the index of the contents."""
    return {
        "aliases": {contents_alias(index_id): {}},
        "settings": {"index": {**_index_settings(settings, settings.num_shards), "knn": True}},
        "mappings": {
            "dynamic": False,  # what is not named here is kept and not indexed
            "properties": contents_fields(settings, dimension),
        },
    }


def contents_fields(settings: OpenSearchSettings, dimension: int) -> Json:
    """Which fields of a content are indexed, and how."""
    vector = {
        "type": "knn_vector",
        "dimension": dimension,
        "method": {
            "name": "hnsw",
            "space_type": SPACE,
            "engine": settings.knn_engine,
            "parameters": {"m": 16, "ef_construction": 128},
        },
    }
    keyword, number = {"type": "keyword"}, {"type": "long"}
    only_found = {"type": "keyword", "doc_values": False}
    return {
        "content_id": keyword,
        "shard": keyword,
        "offset": number,
        "dead": {"type": "boolean"},
        "modality": keyword,
        "source": keyword,
        "owner_id": keyword,
        "occurred_at_ms": number,
        "metadata_keys": only_found,
        "metadata_values": only_found,
        "metadata_numbers": only_found,
        "vectors": {
            "type": "nested",
            "dynamic": False,
            "properties": {"text": vector, "image": vector},
        },
    }


def state_index(settings: OpenSearchSettings, index_id: str) -> Json:
    return {
        "aliases": {state_alias(index_id): {}},
        "settings": {"index": _index_settings(settings, 1)},
        "mappings": {"dynamic": False, "properties": {}},
    }


def pointer_index(settings: OpenSearchSettings) -> Json:
    return {
        "settings": {"index": _index_settings(settings, 1)},
        "mappings": {"dynamic": False, "properties": {}},
    }


def _index_settings(settings: OpenSearchSettings, num_shards: int) -> Json:
    """Each acknowledged write is on the disk of every copy, and a refresh shows it in every copy."""
    return {
        "number_of_shards": num_shards,
        "number_of_replicas": settings.num_replicas,
        "replication.type": "DOCUMENT",
        "translog.durability": "request",
    }
