"""One demo for all examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.running_demo import RunningDemo, running_demo


@pytest.fixture(scope="package")
def demo() -> Iterator[RunningDemo]:
    with running_demo() as running:
        yield running
