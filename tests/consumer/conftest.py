from __future__ import annotations

from pathlib import Path

import pytest

from tests.consumer.running import World
from tests.fixtures.roots import root

__all__ = ["root", "world"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "index")
