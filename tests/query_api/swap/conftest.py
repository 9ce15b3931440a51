"""A root with two indexes, and a service in this process that may be switched from one to the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.indexes.recorded_model import RecordedModel
from clip_index.reading.index_reader import IndexReader
from query_api.app import AppSettings, build_app
from query_api.root_candidates import RootCandidates
from query_api.serving.engine import Reader
from query_api.swap import index_swap
from tests.query_api.conftest import SETTINGS
from tests.query_api.swap.swapping_service import NEW, OLD, Models, build_index


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the same contents in two indexes of different models, of which main serves."""
    build_index(tmp_path, "main", OLD, "old")
    build_index(tmp_path, "v2", NEW, "new")
    return tmp_path


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the pointer often."""
    monkeypatch.setattr(index_swap, "LOOK_SECONDS", 0.01)


@pytest.fixture
def start(root: Path, models: Models, aiohttp_client: Any, at_once: None) -> Callable[..., Any]:
    async def start_service(
        *, overrides: dict[str, RecordedModel] | None = None, free: int | None = None, **settings: Any
    ) -> TestClient[Any, Any]:
        def open_reader(index_id: str, fingerprint: EncoderFingerprint) -> Reader:
            reader = IndexReader(root, index_id, fingerprint)
            reader.reload()
            return reader

        candidates = RootCandidates(
            root, EncoderSettings(model="old"), models, open_reader, lambda: free, overrides or {}
        )
        reader = IndexReader(root, None, OLD.fingerprint)
        with contextlib.suppress(Exception):
            reader.reload()
        encoder = models.encoders.get("served", OLD)
        app = build_app(
            encoder,
            reader,
            CollectorRegistry(),
            AppSettings(**{**SETTINGS, **settings}),
            candidates=candidates,
        )
        client: TestClient[Any, Any] = await aiohttp_client(app)
        return client

    return start_service
