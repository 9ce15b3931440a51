"""Eight writers at once on real servers: one wins each name, and every takeover has an epoch of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from clip_index.generations.history import read_newest
from clip_index.generations.takeover import Claim, take_over_manifest
from clip_index.storage.buckets.object_bucket import open_bucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from fakes.object_stores import object_store
from tests.fixtures.buckets import reach

NUM_WRITERS = 8
NUM_RACES = int(os.environ.get("CLIPTIDE_TEST_STORE_RACES", "10"))
SERVERS = ["s3_gateway", "moto_server", "azurite_server"]
ResultT = TypeVar("ResultT")


@pytest.fixture(params=SERVERS)
def stores(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[ObjectShardStore]:
    """The store of one shard, opened by each of eight machines."""
    url = reach(request.getfixturevalue(request.param), monkeypatch)
    return [
        object_store(open_bucket(url), "uploads-0", tmp_path / f"machine-{i}") for i in range(NUM_WRITERS)
    ]


def race(stores: list[ObjectShardStore], action: Callable[[ObjectShardStore], ResultT]) -> list[ResultT]:
    """Let all act at one moment; return what each that raised no `FileExistsError` returned."""
    start = threading.Barrier(len(stores))

    def act(store: ObjectShardStore) -> list[ResultT]:
        start.wait()
        try:
            return [action(store)]
        except FileExistsError:
            return []

    with ThreadPoolExecutor(len(stores)) as threads:
        return [result for results in threads.map(act, stores) for result in results]


def test_one_of_eight_creators_wins_and_the_store_holds_its_bytes(stores: list[ObjectShardStore]) -> None:
    for number in range(NUM_RACES):
        name = f"manifest-{number}"

        def create(store: ObjectShardStore, name: str = name) -> bytes:
            data = f"{stores.index(store)} of {name}".encode()
            store.create_exclusively(name, data)
            return data

        assert race(stores, create) == [stores[0].read(name)]


def test_eight_takeovers_at_once_have_eight_epochs(stores: list[ObjectShardStore]) -> None:
    """There may be gaps: whoever is overtaken between its put and its listing takes over again."""
    for number in range(max(1, NUM_RACES // 10)):
        shards = [store.below(f"shard-{number}") for store in stores]
        manifests = race(shards, lambda shard: take_over_manifest(shard, Claim(f"writer-{id(shard)}")))
        epochs = sorted(manifest.writer_epoch for manifest in manifests)
        assert len(set(epochs)) == NUM_WRITERS
        newest = read_newest(stores[0].below(f"shard-{number}"))
        assert newest is not None
        assert newest.writer_epoch == epochs[-1]
