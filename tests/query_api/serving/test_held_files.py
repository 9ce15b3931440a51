"""The query service holds what it serves against collection, and says so where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from query_api import opened_index as service
from query_api.serving.former_searchers import KEPT_SECONDS, FormerSearchers
from query_api.serving.served_index import ServedIndex
from query_api.settings import HoldFiles, IndexSettings
from query_api.telemetry.metrics import Metrics
from tests.query_api.small_index import SmallIndex


def leases(index: SmallIndex) -> list[Path]:
    return sorted(index.root.glob("indexes/main/*/readers/*.json"))


@pytest.mark.parametrize(
    ("setting", "is_shared", "expected"),
    [("auto", True, 2), ("auto", False, 0), ("always", False, 2), ("never", True, 0)],
)
def test_what_is_open_is_named_in_each_shard_on_a_shared_file_system_or_as_the_setting_says(
    small_index: SmallIndex,
    monkeypatch: pytest.MonkeyPatch,
    setting: HoldFiles,
    is_shared: bool,
    expected: int,
) -> None:
    monkeypatch.setattr(service, "is_shared", lambda directory: is_shared)
    settings = IndexSettings(root=small_index.root)
    assert service.open_reader(settings, small_index.encoder.fingerprint, setting).searcher is not None
    assert len(leases(small_index)) == expected


async def test_a_root_that_takes_no_writes_is_served_and_told_once(small_index: SmallIndex) -> None:
    for shard in small_index.root.glob("indexes/main/*/"):
        (shard / "readers").write_text("")  # root writes everywhere, so rights would not stop it
    fingerprint = small_index.encoder.fingerprint
    reader = service.open_reader(IndexSettings(root=small_index.root), fingerprint, "always")
    served = ServedIndex(reader, Metrics(CollectorRegistry()))
    with capture_logs() as lines:
        for _ in range(3):
            await served.reload()
    [line] = [line for line in lines if line["event"] == "served files are not held"]
    assert "readers" in line["reason"]
    assert served.has_searcher


def test_a_searcher_that_pages_used_is_dropped_after_an_hour_so_that_it_maps_no_removed_files(
    small_index: SmallIndex,
) -> None:
    reader = small_index.open_reader()
    reader.reload()
    now, searcher = [0.0], reader.searcher
    assert searcher is not None
    former = FormerSearchers(clock=lambda: now[0])
    generations = {name: shard.key for name, shard in searcher.shards.items()}
    former.keep(searcher)
    now[0] = KEPT_SECONDS - 1
    former.keep(searcher)
    former.forget_old()
    assert former.find(generations) is searcher
    now[0] = KEPT_SECONDS
    former.forget_old()
    assert former.find(generations) is None
