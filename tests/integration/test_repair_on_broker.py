"""An operator repairs a shard with a damaged manifest, until the index equals its log again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clip_index.generations.history import list_generations, manifest_name, read_manifest
from clip_index.storage.local_store import LocalShardStore
from cliptide.__main__ import main
from tests.integration.fleet import Fleet
from tests.integration.history import History

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture
def fleet(embedded_fleet: Fleet) -> Fleet:
    return embedded_fleet


def run(fleet: Fleet, *arguments: str) -> Result:
    env = {
        "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": fleet.kafka.bootstrap_servers,
        "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(fleet.kafka.properties)),
        "CLIPTIDE_INDEX__ROOT": str(fleet.root),
        "CLIPTIDE_DEAD_LETTER_TOPIC": fleet.dead_letter_topic,
    }
    return CliRunner(env=env).invoke(main, list(arguments))


def last_line(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return fields


def index_until_the_newest_generation_adds(fleet: Fleet, history: History, partition: int) -> Path:
    """Return a shard whose newest generation is a commit: it covers more of the log than the one before."""
    while True:
        member = fleet.start()
        for _ in range(2):
            history.publish(100)
            history.wait_until_indexed(fleet)
        assert member.stop() == 0
        shard = next(fleet.root.glob(f"indexes/main/*-{partition}"))
        store = LocalShardStore(shard)
        before, newest = (read_manifest(store, number) for number in list_generations(store)[-2:])
        if newest.next_offset > before.next_offset:
            return shard


def damage_newest_manifest(shard: Path) -> Path:
    path = shard / manifest_name(list_generations(LocalShardStore(shard))[-1])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    return path


def test_a_damaged_manifest_is_refused_repaired_and_made_good_from_the_log(
    fleet: Fleet, history: History
) -> None:
    shard = index_until_the_newest_generation_adds(fleet, history, partition=2)
    path = damage_newest_manifest(shard)

    refused = fleet.start()
    assert refused.wait() == 3
    assert f"damaged file {path}" in refused.said.splitlines()[-1]

    repaired = last_line(run(fleet, "snapshot", "repair", "--partition", "2", "--while-running", "--json"))
    assert repaired["committed"] == list_generations(LocalShardStore(shard))[-1]
    assert repaired["next_offset"] < history.ends[2]

    witness = fleet.start()
    assert witness.wait() == 3
    assert f"the index goes on at {repaired['next_offset']}" in witness.said.splitlines()[-1]

    member = fleet.start("--accept-rewind")
    history.wait_until_indexed(fleet)
    history.publish(50)
    history.wait_until_indexed(fleet)
    assert member.stop() == 0
    verified = run(fleet, "verify")
    assert last_line(verified)["equal"] is True
    assert verified.exit_code == 0
