"""Tries OpenSearch where the index lies there: whether it answers, fits, and holds the index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from clip_index.errors import ClipIndexError, IndexMissing
from cliptide.doctor.findings import Finding, failed, ok
from consumer.settings import Settings
from consumer.starting.options_from_settings import opensearch_settings
from opensearch_engine.connection import Connection
from opensearch_engine.errors import EngineUnavailable
from opensearch_engine.index import open_index

_URL = "CLIPTIDE_OPENSEARCH__URL"


def check_opensearch(settings: Settings) -> Iterator[Finding]:
    """Open the index as a query service does; nothing is created."""
    reached = opensearch_settings(settings)
    assert reached is not None
    index_id = settings.index.id
    try:
        with closing(Connection(reached)) as connection:
            found = open_index(connection, index_id).description
    except IndexMissing:
        yield ok(
            "opensearch", f"{reached.url} answers; there is no index {index_id} yet, a consumer creates it"
        )
    except EngineUnavailable as error:
        yield failed("opensearch", str(error), f"start OpenSearch, or correct {_URL}")
    except ClipIndexError as error:
        yield failed("opensearch", str(error), "docs/operations.md explains this sentence")
    else:
        if found.topic == settings.topic:
            yield ok("opensearch", f"{index_id}, {found.num_partitions} shards of {found.topic}")
            return
        message = f"the index {index_id} was built from {found.topic}, and CLIPTIDE_TOPIC is {settings.topic}"
        yield failed("opensearch", message, "correct CLIPTIDE_TOPIC, or set another CLIPTIDE_INDEX__ID")
