"""Both services over one index in OpenSearch: uploads flow in, and are found over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from cliptide.demo.child_process import free_port
from fakes.hash_encoder import HashEncoder, draw_picture
from fakes.shards import description
from opensearch_engine.connection import Connection
from opensearch_engine.index import create_index
from opensearch_engine.reader import OpenSearchReader
from query_api.app import AppSettings, build_app
from schemas.events import DeleteEvent, ImageContent
from tests.consumer.running import TOPIC, World, eventually, upload
from tests.opensearch_engine.small_index import SmallIndexInOpenSearch

QUERY_API = """
import sys
from query_api.__main__ import run
from fakes.hash_encoder import HashEncoder
sys.exit(run(lambda settings: HashEncoder()))
"""


def next_offset(reader: OpenSearchReader) -> int:
    try:
        reader.reload()
    except Exception:  # noqa: BLE001 - the consumer creates the index
        return -1
    return -1 if reader.searcher is None else reader.searcher.shards[f"{TOPIC}-0"].next_offset


async def test_what_is_uploaded_is_searched_over_http(
    connection: Connection, tmp_path: Path, aiohttp_client: Any
) -> None:
    world = World(tmp_path, opensearch=connection.settings)
    reader = OpenSearchReader(connection)
    with world.running():
        world.publish(upload("t1"))
        world.publish(upload("t2"))
        world.publish(upload("p1", ImageContent(draw_picture(1))))
        end = world.publish(DeleteEvent("event-9", "t2", "tests", datetime.now(timezone.utc)))
        eventually(lambda: next_offset(reader) >= end)
    assert world.reasons() == []
    settings = AppSettings(has_percentiles=True)
    service = OpenSearchReader(connection, None, HashEncoder().fingerprint)
    service.reload()
    client = await aiohttp_client(build_app(HashEncoder(), service, CollectorRegistry(), settings))
    found = await client.post(
        "/v1/search", json={"text": "a text about t1", "k": 5, "min_offsets": {f"{TOPIC}-0": end}}
    )
    answer = await found.json()
    assert found.status == 200, answer
    assert [hit["content_id"] for hit in answer["results"]["text"]["hits"]] == ["t1"]
    assert answer["snapshot"][f"{TOPIC}-0"]["next_offset"] >= end
    described = await (await client.get("/v1/index")).json()
    assert described["num_contents"] == {"text": 1, "image": 1}
    assert not any(described["guarantees"].values())


async def test_pages_repeat_and_skip_nothing_while_contents_arrive_and_go(
    connection: Connection, tmp_path: Path, aiohttp_client: Any
) -> None:
    index = SmallIndexInOpenSearch(connection, tmp_path).create()
    index.commit(0, *(index.text(f"t-{n}", f"red thing number {n}") for n in range(8)))
    service = index.open_reader()
    service.reload()
    client = await aiohttp_client(
        build_app(HashEncoder(), service, CollectorRegistry(), AppSettings(has_percentiles=False))
    )
    asked: dict[str, Any] = {"text": "a red thing", "modality": "text", "k": 3, "paged": True}
    read: list[str] = []
    for round_ in range(9):
        answer = await (await client.post("/v1/search", json=asked)).json()
        read += [hit["content_id"] for hit in answer["results"]["text"]["hits"]]
        if answer["next_cursor"] is None:
            break
        asked = {"cursor": answer["next_cursor"]}
        index.commit(0, *(index.text(f"new-{round_}-{n}", "a red thing") for n in range(40)))
        service.reload()
    assert sorted(read) == [f"t-{n}" for n in range(8)]


async def test_a_search_while_opensearch_is_away_is_answered_503(
    connection: Connection, tmp_path: Path, aiohttp_client: Any
) -> None:
    index = SmallIndexInOpenSearch(connection, tmp_path).create()
    index.commit(0, index.text("a", "a red dress"))
    service = index.open_reader()
    service.reload()
    client = await aiohttp_client(
        build_app(HashEncoder(), service, CollectorRegistry(), AppSettings(has_percentiles=False))
    )
    assert (await client.post("/v1/search", json={"text": "red"})).status == 200
    connection._client.transport.perform_request = _refused  # type: ignore[method-assign]
    answer = await client.post("/v1/search", json={"text": "red"})
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert (await answer.json())["error"]["message"].startswith("the search engine does not answer")


def _refused(*_: object, **__: object) -> object:
    from opensearchpy.exceptions import ConnectionError as NoAnswer

    raise NoAnswer("N/A", "refused", OSError("refused"))


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=_environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


def _environment(variables: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLIPTIDE_")}
    ports = {"CLIPTIDE_QUERY_API__PORT": "0", "CLIPTIDE_QUERY_API__METRICS_PORT": "0"}
    return {**kept, **ports, "CLIPTIDE_INDEX__ENGINE": "opensearch", **variables}


def test_a_query_service_waits_for_opensearch_and_says_so(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    environment = _environment({"CLIPTIDE_OPENSEARCH__URL": url, "CLIPTIDE_LOG__FORMAT": "json"})
    process = subprocess.Popen(
        [sys.executable, "-c", QUERY_API], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "listening":
                break
        waiting = [line for line in lines if line["event"] == "waiting for the search engine"]
        assert f"OpenSearch at {url} does not answer" in waiting[0]["reason"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_an_index_of_another_encoder_is_one_sentence(connection: Connection, tmp_path: Path) -> None:
    create_index(connection, tmp_path, "main", description())
    done = run(QUERY_API, CLIPTIDE_OPENSEARCH__URL=connection.settings.url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("query_api: the index was built by test-encoder")


def test_a_query_service_without_an_address_is_one_sentence() -> None:
    done = run(QUERY_API)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "query_api: CLIPTIDE_OPENSEARCH__URL: CLIPTIDE_INDEX__ENGINE=opensearch needs it"
    )
