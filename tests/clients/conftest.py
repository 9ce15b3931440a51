"""One running service for all generated clients, and its document as they get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.clients.toolchain import ToolsMissing, node_modules, openapi_generator
from tests.consumer.running import World, upload
from tests.fixtures.served_apps import serving
from tests.integration.pipeline import build_service


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service and a consumer, so that uploads become searchable."""
    world = World(tmp_path_factory.mktemp("pipeline") / "index", num_partitions=2)
    with world.running():
        world.wait_committed(world.publish(upload("another")))
        with serving(build_service(world)) as address:
            yield address


@pytest.fixture(scope="module")
def document(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    with urlopen(f"{address}/openapi.json") as answer:
        path.write_bytes(answer.read())
    return path


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder of the npm packages."""
    try:
        return node_modules()
    except ToolsMissing as error:
        pytest.skip(f"no generators of clients: {error}")


@pytest.fixture(scope="session")
def generator_jar() -> Path:
    try:
        return openapi_generator()
    except ToolsMissing as error:
        pytest.skip(f"no openapi-generator: {error}")
