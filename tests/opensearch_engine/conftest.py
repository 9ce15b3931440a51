"""An index of its own for each test, on the node that all tests share."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.shards import description
from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.index import OpenSearchIndex, create_index
from tools.opensearch_node.node import OpenSearchNode


def settings_of(url: str, **changes: Any) -> OpenSearchSettings:
    return OpenSearchSettings(url, **{"knn_engine": "lucene", "num_replicas": 0, **changes})


def forget_indexes(url: str) -> None:
    """Delete every index of the node, so that the next test finds it as new."""
    with urllib.request.urlopen(f"{url}/_cat/indices?format=json") as answer:
        names = [one["index"] for one in json.load(answer)]
    for name in names:
        urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="DELETE")).close()


@pytest.fixture
def connection(opensearch_node: OpenSearchNode) -> Iterator[Connection]:
    connection = Connection(settings_of(opensearch_node.url))
    yield connection
    connection.close()
    forget_indexes(opensearch_node.url)


@pytest.fixture
def index(connection: Connection, tmp_path: Path) -> OpenSearchIndex:
    return create_index(connection, tmp_path, "main", description(num_partitions=2))
