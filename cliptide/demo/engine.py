"""The demo's index in OpenSearch: an index of its own for each run, which is removed at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Literal, TypeAlias

from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.errors import EngineUnavailable
from opensearch_engine.index import remove_index
from service.sections import OpenSearchSection

EngineName: TypeAlias = Literal["directory", "opensearch"]
_PREFIX = "CLIPTIDE_OPENSEARCH__"
_DEFAULTS = {"URL": "http://127.0.0.1:9200", "KNN_ENGINE": "lucene", "NUM_REPLICAS": "0"}
"""One node on this machine, with or without native libraries."""


class NoEngine(Exception):
    """OpenSearch does not answer. The message says how to start it."""


@contextmanager
def engine_variables(engine: EngineName) -> Iterator[Mapping[str, str]]:
    """Yield the variables that both services need to use the engine."""
    if engine == "directory":
        yield {}
        return
    given = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    variables = {**{_PREFIX + name: value for name, value in _DEFAULTS.items()}, **given}
    index_id = f"demo-{secrets.token_hex(4)}"
    with closing(_connect(variables)) as connection:
        try:
            yield {**variables, "CLIPTIDE_INDEX__ENGINE": engine, "CLIPTIDE_INDEX__ID": index_id}
        finally:
            remove_index(connection, index_id)


def _connect(variables: Mapping[str, str]) -> Connection:
    section = OpenSearchSection.model_validate(
        {name.removeprefix(_PREFIX).lower(): value for name, value in variables.items()}
    )
    connection = Connection(OpenSearchSettings(**section.connection()))
    try:
        connection.ask("GET", "/")
    except EngineUnavailable as error:
        connection.close()
        raise NoEngine(
            f"{error}; start a node with `python -m tools.opensearch_node`, or set {_PREFIX}URL"
        ) from error
    return connection
