"""Between two full looks the service asks often and cheaply for news."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from clip_index.errors import DamagedFile
from clip_index.reading.index_reader import IndexReader
from query_api import opened_index, options_from_settings
from query_api.serving import quick_looks
from query_api.serving.quick_looks import QuickLooks
from query_api.serving.served_index import MAX_REST_SECONDS, REST_FACTOR
from query_api.settings import IndexSettings
from query_api.swap.index_swap import INDEX_SWAP
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

LONG = 3600.0


def looks(may_have_news: Callable[[], bool]) -> QuickLooks:
    reader: Any = SimpleNamespace(may_have_news=may_have_news)
    return QuickLooks(reader)


async def test_a_commit_is_served_long_before_the_next_full_look(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_looks, "FULL_LOOK_SECONDS", LONG)
    client = await start_service(small_index)
    for number in range(3):
        next_offset = small_index.commit(0, small_index.text(f"t-{number}", "new"))
        body = {"text": "new", "min_offsets": {f"{TOPIC}-0": next_offset}, "timeout_ms": 10_000}
        assert (await client.post("/v1/search", json=body)).status == 200


async def test_without_news_the_shards_are_not_read(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_looks, "FULL_LOOK_SECONDS", LONG)
    looked, full_looks, enough = [], [], threading.Event()
    may_have_news, reload = IndexReader.may_have_news, IndexReader.reload

    def look(reader: IndexReader) -> bool:
        looked.append(1)
        if len(looked) > 5:
            enough.set()
        return may_have_news(reader)

    def look_fully(reader: IndexReader) -> bool:
        full_looks.append(1)
        return reload(reader)

    monkeypatch.setattr(IndexReader, "may_have_news", look)
    monkeypatch.setattr(IndexReader, "reload", look_fully)
    await start_service(small_index)
    assert await asyncio.to_thread(enough.wait, PATIENCE_SECONDS)
    assert len(full_looks) == 2  # when the reader was opened, and when the loop began


async def test_trouble_makes_a_full_look_due_which_tells_of_it() -> None:
    def fail() -> bool:
        raise DamagedFile("manifest", "it is damaged")

    quick = looks(fail)
    await asyncio.wait_for(quick.wait(0.001), PATIENCE_SECONDS)
    quick.close()


async def test_a_long_interval_needs_no_quick_looks() -> None:
    def fail() -> bool:
        raise AssertionError

    waiting = asyncio.create_task(looks(fail).wait(LONG))
    assert not (await asyncio.wait([waiting], timeout=0.01))[0]
    waiting.cancel()


@pytest.mark.parametrize("num_awaiting", [0, 1], ids=["nobody waits", "somebody waits"])
async def test_nothing_is_looked_for_during_a_rest_unless_somebody_waits_for_it(num_awaiting: int) -> None:
    reader: Any = SimpleNamespace(may_have_news=lambda: True)
    quick = QuickLooks(reader)
    quick.num_awaiting = num_awaiting
    waiting = asyncio.create_task(quick.wait(0.001, rest_seconds=0.3))
    ended, _ = await asyncio.wait([waiting], timeout=0.1)
    assert len(ended) == num_awaiting
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    quick.close()


async def test_after_a_reload_the_loop_rests_in_proportion_to_its_cpu_time(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index)
    assert client.app is not None
    served = client.app[INDEX_SWAP].pair.index
    reload = served._reader.reload

    def reload_slowly() -> bool:
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            pass
        return reload()

    served._reader.reload = reload_slowly  # type: ignore[method-assign]
    await served.reload()
    assert REST_FACTOR * 0.005 <= served._rest_seconds <= MAX_REST_SECONDS


async def test_a_quick_look_that_hangs_is_seen(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(small_index)
    assert client.app is not None
    served, answers = client.app[INDEX_SWAP].pair.index, threading.Event()
    reader: Any = served._quick_looks._reader
    reader.may_have_news = lambda: answers.wait(PATIENCE_SECONDS)
    try:
        while served.seconds_looking < 0.05:  # noqa: ASYNC110 (a thread cannot wake this loop)
            await asyncio.sleep(0.01)
    finally:
        answers.set()


async def test_a_damaged_generation_is_not_tried_again_at_every_quick_look(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_api.serving.served_index.FULL_LOOK_SECONDS", LONG)
    reloads, reload = [], IndexReader.reload

    def look(reader: IndexReader) -> bool:
        reloads.append(1)
        reload(reader)
        raise DamagedFile("manifest", "it is damaged")

    client = await start_service(small_index)
    assert client.app is not None
    served = client.app[INDEX_SWAP].pair.index
    monkeypatch.setattr(IndexReader, "reload", look)
    small_index.commit(0, small_index.text("t-new", "new"))
    while served.last_failure is None:  # noqa: ASYNC110 (a reload cannot be waited for)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(reloads) == 1


@pytest.mark.parametrize(
    ("index", "is_shared", "expected"),
    [
        pytest.param({"root": "/data"}, False, 0.01, id="a disk of this machine"),
        pytest.param({"root": "/data"}, True, 0.05, id="a disk that machines share"),
        pytest.param({"root": "/data", "engine": "opensearch"}, False, 0.05, id="another engine"),
        pytest.param({"root": "s3://bucket/index", "cache_dir": "/cache"}, False, 0.2, id="a bucket"),
    ],
)
def test_what_asks_another_machine_is_asked_less_often(
    index: dict[str, Any], is_shared: bool, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_index, "is_shared", lambda directory: is_shared)
    assert options_from_settings._default_reload_interval(IndexSettings(**index)) == expected
